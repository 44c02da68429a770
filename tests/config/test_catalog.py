"""What the loader accepts, routing can be made from: both have the same words, and mean the same by names."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

from hypothesis import HealthCheck, given, settings

from proxy.bootstrap.blueprint import blueprint_of_file
from proxy.config.names import Names
from proxy.config.schema import CapabilityName, FallbacksConfig, ProviderKind, StrategyName
from proxy.domain.catalog import Capability, FallbackKind, Strategy
from proxy.domain.price_tiers import PriceTier
from proxy.domain.pricing import PRICES
from proxy.infrastructure.chat_completion.registry import KINDS
from proxy.settings import Settings
from tests.config.documents import EVERYTHING, as_yaml, load, valid_documents


def _settings() -> Settings:
    none_given: dict[str, Any] = {}
    return Settings(**none_given)


def test_the_words_are_those_of_routing() -> None:
    assert list(get_args(StrategyName)) == list(Strategy)
    assert list(get_args(CapabilityName)) == list(Capability)
    assert list(FallbacksConfig.model_fields) == list(FallbackKind)
    assert set(get_args(ProviderKind)) == set(KINDS)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(valid_documents())
def test_every_configuration_that_loads_makes_a_catalog(document: dict[str, Any]) -> None:
    blueprint = blueprint_of_file(load(as_yaml(document)).config, _settings())
    assert {route.name for route in blueprint.catalog.routes} == set(document["models"])


def test_every_price_in_the_file_is_its_deployments() -> None:
    config = load(EVERYTHING).config
    given = config.models["gpt-4o"].deployments[0].prices
    assert given is not None
    route = blueprint_of_file(config, _settings()).catalog.resolve("gpt-4o")
    assert route is not None
    price = route.deployments[0].price
    told = {name.replace("_cost_per_", "_usd_per_"): getattr(price, name) for name in PRICES}
    assert told == given.model_dump(exclude={"tiers"})
    assert len(set(told.values())) == len(PRICES)
    assert price is not None
    assert price.tiers == (
        PriceTier(
            {"input_cost_per_1m_tokens": Decimal("2.75"), "request_fee_usd": Decimal(0)},
            above_input_tokens=200_000,
            service_tier="flex",
        ),
        PriceTier(
            {"input_cost_per_1m_tokens": Decimal(5), "output_cost_per_1m_tokens": Decimal(15)},
            above_input_tokens=200_000,
        ),
    )


def test_names_lead_to_models_where_the_catalog_says_so() -> None:
    config = load(EVERYTHING).config
    catalog = blueprint_of_file(config, _settings()).catalog
    names = Names.of({"models": config.models, "aliases": config.aliases})
    for name in ("gpt-4o", "gpt-4", "newest", "openrouter/x", "openrouter/", "openrouter", "other", "gpt-4o/x"):
        assert names.is_model(name) == (catalog.resolve(name) is not None), name
