"""From settings or a configuration file to what the gateway serves: a catalog, and how its deployments are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.bootstrap.config_file import OPENROUTER
from proxy.config.schema import (
    DeploymentConfig,
    GatewayConfig,
    ModelConfig,
    PricesConfig,
    PriceTierConfig,
    ProviderConfig,
)
from proxy.domain.catalog import Capability, Catalog, Deployment, FallbackKind, ModelRoute, Strategy, one_provider
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import EPOCH, PRICES, ModelPricing, PriceSource
from proxy.domain.routing import ModelPolicy
from proxy.domain.values import ModelName
from proxy.infrastructure.chat_completion.dialect import UsageInStreams
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec, RetryBudgetSettings
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
    model_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def example_model(self) -> str:
        """A name to try the gateway with."""
        named = (route.name for route in self.catalog.routes if not route.is_wildcard)
        return next(named, self.policy.default_model)

    def summary(self) -> str:
        """For people: one provider's address, or how much there is."""
        if len(self.deployments) == 1:
            return self.deployments[0].wire.base_url
        providers = {spec.wire.provider for spec in self.deployments}
        models, deployments = len(self.catalog.routes), len(self.deployments)
        return f"{models} models, {deployments} deployments, providers: {', '.join(sorted(providers))}"


def blueprint_without_file(settings: Settings, demo_url: str | None) -> Blueprint:
    """Every model name goes to one provider: OpenRouter, another one by its URL, or the demo upstream."""
    provider = OPENROUTER if demo_url is None else "Demo"
    catalog = one_provider(provider)
    wire = WireSettings(
        provider=provider,
        base_url=demo_url or settings.openrouter_base_url,
        api_key=settings.openrouter_api_key.get_secret_value() if settings.openrouter_api_key else "",
        first_byte_timeout_seconds=settings.openrouter_timeout_seconds,
        answer_timeout_seconds=settings.first_byte_of_answer_seconds,
        idle_timeout_seconds=settings.stream_idle_timeout_seconds,
        stream_total_timeout_seconds=settings.stream_total_timeout_seconds,
        stream_hold_seconds=settings.stream_hold_seconds,
        max_answer_bytes=settings.max_answer_bytes,
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


def blueprint_of_file(config: GatewayConfig, settings: Settings) -> Blueprint:
    """What a configuration file says. Raises InvalidValue for what loading cannot see (prices that are none)."""
    routes = tuple(_route(name, model, config) for name, model in config.models.items())
    chains = {
        FallbackKind.GENERAL: config.fallbacks.general,
        FallbackKind.CONTEXT_WINDOW: config.fallbacks.context_window,
        FallbackKind.CONTENT_POLICY: config.fallbacks.content_policy,
    }
    specs: dict[str, DeploymentSpec] = {}
    for route, model in zip(routes, config.models.values(), strict=True):
        for deployment, described in zip(route.deployments, model.deployments, strict=True):
            specs.setdefault(deployment.name, _spec(deployment, described, config, settings))
    return Blueprint(
        Catalog(routes, config.aliases, chains),
        list(specs.values()),
        model_policy(settings),
        max_attempts=config.routing.max_attempts,
        request_timeout_seconds=config.routing.request_timeout_seconds,
        model_groups=config.model_groups,
    )


def _route(name: str, model: ModelConfig, config: GatewayConfig) -> ModelRoute:
    hedge: float | Literal["p95"] | None = None
    if model.hedge is not None:
        hedge = model.hedge.after_seconds or "p95"
    deployments = tuple(_deployment(each, config.providers[each.provider]) for each in model.deployments)
    return ModelRoute(name, deployments, Strategy(model.strategy), sticky=model.sticky, hedge_after=hedge)


def _deployment(described: DeploymentConfig, provider: ProviderConfig) -> Deployment:
    capabilities = described.capabilities
    return Deployment(
        name=described.name,
        provider=described.provider,
        model=described.model,
        weight=described.weight,
        order=described.order,
        rpm=described.rpm,
        tpm=described.tpm,
        tags=frozenset(described.tags),
        capabilities=None if capabilities is None else frozenset(map(Capability, capabilities)),
        context_window_tokens=described.context_window_tokens,
        price=_price(described),
        walks_models=provider.kind == "openrouter",
    )


def _price(described: DeploymentConfig) -> ModelPricing | None:
    prices = described.prices
    if prices is None:
        return None
    return ModelPricing(
        model=ModelName(described.model),
        provider=described.provider,
        max_context_tokens=described.context_window_tokens,
        updated_at=EPOCH,
        source=PriceSource.SET,
        tiers=[PriceTier(_given(tier), tier.above_input_tokens, tier.service_tier) for tier in prices.tiers],
        **_given(prices),
    )


def _given(prices: PricesConfig | PriceTierConfig) -> dict[str, Any]:
    """By their names in ModelPricing."""
    named = {name: getattr(prices, name.replace("_cost_per_", "_usd_per_")) for name in PRICES}
    return {name: usd for name, usd in named.items() if usd is not None}


def _spec(
    deployment: Deployment, described: DeploymentConfig, config: GatewayConfig, settings: Settings
) -> DeploymentSpec:
    provider, routing = config.providers[described.provider], config.routing
    wire = WireSettings(
        provider=described.provider,
        base_url=provider.base_url or "",
        api_key=provider.api_key.get_secret_value() if provider.api_key else "",
        headers={name: value.get_secret_value() for name, value in provider.headers.items()},
        done_marker=provider.done_marker,
        usage_in_streams=UsageInStreams(provider.usage_in_streams),
        first_byte_timeout_seconds=described.timeouts.first_byte_seconds,
        answer_timeout_seconds=described.timeouts.answer_seconds,
        idle_timeout_seconds=described.timeouts.idle_seconds,
        stream_total_timeout_seconds=described.timeouts.stream_total_seconds,
        stream_hold_seconds=settings.stream_hold_seconds,
        max_answer_bytes=settings.max_answer_bytes,
    )
    return DeploymentSpec(
        deployment=deployment,
        kind=provider.kind,
        wire=wire,
        connect_timeout_seconds=described.timeouts.connect_seconds,
        max_concurrency=described.max_concurrency,
        max_queue=provider.max_queue,
        queue_timeout_seconds=provider.queue_timeout_seconds,
        retries=RetryPolicy(routing.max_attempts - 1, routing.retry_base_seconds, routing.retry_after_cap_seconds),
        failure_threshold=routing.circuit_breaker.failure_threshold,
        cooldown_seconds=routing.circuit_breaker.cooldown_seconds,
        retry_budget=RetryBudgetSettings(provider.retry_budget.percent, provider.retry_budget.min_requests),
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
