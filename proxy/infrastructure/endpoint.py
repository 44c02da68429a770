"""Where a provider is asked for what costs nothing: its models, its bills, whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.infrastructure.chat_completion.wire import WireSettings


@dataclass(frozen=True, slots=True)
class ProviderEndpoint:
    """Paths like `models` are under its base URL."""

    base_url: str
    headers: Mapping[str, str]


def endpoint_of(wire: WireSettings) -> ProviderEndpoint:
    key = {"Authorization": f"Bearer {wire.api_key}"} if wire.api_key else {}
    return ProviderEndpoint(wire.base_url, {**key, **wire.headers})
