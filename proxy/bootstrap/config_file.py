"""Which configuration file there is, and what it says: without Semantic Kernel, which takes seconds to import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from proxy.config.loading import load_config
from proxy.config.messages import without_values
from proxy.config.problems import ConfigErrors
from proxy.config.schema import GatewayConfig
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.endpoint import ProviderEndpoint, endpoint_of
from proxy.settings import Settings

_DEFAULT_FILE = "gateway.yaml"
OPENROUTER = "OpenRouter"  # the provider's name where no file gives it one


def configuration_file(settings: Settings) -> Path | None:
    """LLMGATEWAY_CONFIG, else gateway.yaml if there is one here, else none."""
    if settings.llmgateway_config:
        return Path(settings.llmgateway_config)
    path = Path(_DEFAULT_FILE)
    return path if path.exists() else None


def read_configuration(path: Path, settings: Settings) -> GatewayConfig:
    """What the file says; what it leaves out is as the settings have it. Raises ConfigErrors."""
    return load_config(path, os.environ, settings.model_dump(include=settings.model_fields_set)).config


def words_for_logs(problem: InvalidValue) -> str:
    """Why a gateway cannot start, without anything that its configuration file says."""
    if isinstance(problem, ConfigErrors):
        return "\n".join((*without_values(problem), "`llmgateway check-config` tells more."))
    return str(problem)


def billing_providers(settings: Settings) -> dict[str, ProviderEndpoint]:
    """Where prices and bills are asked for, by the provider's name: those that are OpenRouter. Raises ConfigErrors."""
    path = configuration_file(settings)
    if path is None:
        if settings.uses_demo_upstream:
            return {}
        key = settings.openrouter_api_key
        return {OPENROUTER: _endpoint(settings.openrouter_base_url, key, {})}
    return {
        name: _endpoint(provider.base_url or "", provider.api_key, provider.headers)
        for name, provider in read_configuration(path, settings).providers.items()
        if provider.kind == "openrouter"
    }


def _endpoint(base_url: str, api_key: SecretStr | None, headers: Mapping[str, SecretStr]) -> ProviderEndpoint:
    sent = {name: value.get_secret_value() for name, value in headers.items()}
    key = api_key.get_secret_value() if api_key else ""
    return endpoint_of(WireSettings(OPENROUTER, base_url, key, headers=sent))
