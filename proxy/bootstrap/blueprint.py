"""From settings to what the gateway serves: a catalog, and how each of its deployments is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.domain.catalog import Catalog, one_provider
from proxy.domain.routing import ModelPolicy
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec
from proxy.infrastructure.resilience import RetryPolicy
from proxy.settings import Settings

_MOST_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Blueprint:
    """One configuration, ready to be built."""

    catalog: Catalog
    deployments: Sequence[DeploymentSpec]
    policy: ModelPolicy
    max_attempts: int
    request_timeout_seconds: float


def blueprint_without_file(settings: Settings, demo_url: str | None) -> Blueprint:
    """Every model name goes to one provider: OpenRouter, another one by its URL, or the demo."""
    provider = "OpenRouter" if demo_url is None else "Demo"
    catalog = one_provider(provider)
    wire = WireSettings(
        provider=provider,
        base_url=demo_url or settings.openrouter_base_url,
        api_key=settings.openrouter_api_key.get_secret_value() if settings.openrouter_api_key else "",
        first_byte_timeout_seconds=settings.openrouter_timeout_seconds,
        idle_timeout_seconds=settings.stream_idle_timeout_seconds,
        stream_total_timeout_seconds=settings.stream_total_timeout_seconds,
        stream_hold_seconds=settings.stream_hold_seconds,
    )
    spec = DeploymentSpec(
        deployment=catalog.routes[0].deployments[0],
        kind="openrouter",
        wire=wire,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        retries=retry_policy(settings),
        failure_threshold=settings.circuit_breaker_failure_threshold,
        cooldown_seconds=settings.circuit_breaker_cooldown_seconds,
        cools_down=False,  # nobody else could be asked; the client is told what the provider says
    )
    return Blueprint(
        catalog,
        [spec],
        model_policy(settings),
        max_attempts=max(_MOST_ATTEMPTS, settings.retry_max_retries + 1),
        request_timeout_seconds=settings.request_timeout_seconds,
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        max_retries=settings.retry_max_retries,
        base_seconds=settings.retry_base_seconds,
        retry_after_cap_seconds=settings.retry_after_cap_seconds,
    )


def model_policy(settings: Settings) -> ModelPolicy:
    return ModelPolicy(
        default_model=settings.auto_default_model,
        large_context_model=settings.auto_large_context_model,
        balanced_model=settings.auto_balanced_model,
        large_context_threshold_tokens=settings.auto_large_context_threshold_tokens,
        max_prompt_tokens=settings.auto_max_prompt_tokens,
    )
