"""Composing what is shared through Valkey. Imported only where there is one: its client takes 8 MB."""

from __future__ import annotations

from pydantic import SecretStr

from proxy.infrastructure.idempotency.valkey import ValkeyRegistry
from proxy.infrastructure.limits.valkey import ValkeyCounts
from proxy.settings import Settings


def shared_counts(settings: Settings, url: SecretStr) -> ValkeyCounts:
    return ValkeyCounts(_redis_url(url), settings.valkey_deadline_seconds)


def shared_registry(settings: Settings, url: SecretStr) -> ValkeyRegistry:
    return ValkeyRegistry(_redis_url(url), settings.valkey_deadline_seconds)


def _redis_url(url: SecretStr) -> str:
    """The client knows Redis's schemes alone."""
    text = url.get_secret_value()
    for scheme, known in (("valkey://", "redis://"), ("valkeys://", "rediss://")):
        if text.startswith(scheme):
            return known + text.removeprefix(scheme)
    return text
