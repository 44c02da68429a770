"""Where a provider is asked for what costs nothing: its models, its bills, whether it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.infrastructure.chat_completion.wire import WireSettings


@dataclass(frozen=True, slots=True)
class ProviderEndpoint:
    """Paths like `models` are under its base URL."""

    base_url: str
    headers: Mapping[str, str]
    models: str = "models"

    @property
    def models_url(self) -> str:
        return f"{self.base_url.rstrip('/')}/{self.models}"


@dataclass(frozen=True, slots=True)
class _Access:
    """How a kind differs: what its base URL ends in, where the key goes, and how all models are asked for at once."""

    version: str = ""
    key_header: str | None = None  # None: as bearer token
    headers: Mapping[str, str] = field(default_factory=dict)
    models: str = "models"


_OPENAI = _Access()
_OTHERS = {
    "anthropic": _Access("/v1", "x-api-key", {"anthropic-version": "2023-06-01"}, "models?limit=1000"),
    "azure": _Access(key_header="api-key"),
    "google": _Access("/v1beta", "x-goog-api-key", models="models?pageSize=1000"),
}


def endpoint_of(wire: WireSettings, kind: str = "openai") -> ProviderEndpoint:
    """`kind` is the provider's, as the registry knows it."""
    access, base_url = _OTHERS.get(kind, _OPENAI), wire.base_url.rstrip("/")
    if not base_url.endswith(access.version):
        base_url += access.version
    key = {access.key_header or "Authorization": wire.api_key if access.key_header else f"Bearer {wire.api_key}"}
    headers = {**(key if wire.api_key else {}), **access.headers, **wire.headers}
    return ProviderEndpoint(base_url, headers, access.models)
