"""Where Valkey is."""

from __future__ import annotations

from pydantic import SecretStr


def redis_url(url: SecretStr) -> str:
    """The client knows Redis's schemes alone."""
    text = url.get_secret_value()
    for scheme, known in (("valkey://", "redis://"), ("valkeys://", "rediss://")):
        if text.startswith(scheme):
            return known + text.removeprefix(scheme)
    return text
