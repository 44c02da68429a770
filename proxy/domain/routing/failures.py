"""Which failures ask for another model rather than for another try."""

from __future__ import annotations

from proxy.domain.catalog import FallbackKind
from proxy.domain.errors import UpstreamError


def failure_kind(error: UpstreamError) -> FallbackKind | None:
    """The chain that is for such a failure; None if the general one is, or none."""
    if error.is_context_window:
        return FallbackKind.CONTEXT_WINDOW
    if error.is_content_policy:
        return FallbackKind.CONTENT_POLICY
    return None
