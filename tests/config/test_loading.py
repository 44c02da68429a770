"""What a valid file means."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from proxy.config.loading import load_config
from proxy.config.problems import ConfigErrors
from proxy.config.schema import BASE_URLS, CircuitBreakerConfig, RoutingConfig, TimeoutsConfig
from proxy.settings import Settings
from tests.config.documents import EVERYTHING, SMALL, as_yaml, load


def test_every_key_arrives() -> None:
    config = load(EVERYTHING).config
    provider = config.providers["openrouter"]
    assert provider.api_key is not None
    assert provider.api_key.get_secret_value() == "sk-secret-1"
    assert {name: value.get_secret_value() for name, value in provider.headers.items()} == {
        "HTTP-Referer": "https://example.com",
        "X-Title": "sk-secret-2",
    }
    assert (provider.max_concurrency, provider.max_queue, provider.queue_timeout_seconds) == (7, 9, 8)
    assert (provider.done_marker, provider.usage_in_streams) == (False, "never")
    assert (provider.retry_budget.percent, provider.retry_budget.min_requests) == (10, 2)
    model = config.models["gpt-4o"]
    assert (model.strategy, model.sticky) == ("latency", True)
    assert model.hedge is not None
    assert model.hedge.after_seconds == 2
    deployment = model.deployments[0]
    assert (deployment.provider, deployment.model, deployment.name) == ("openrouter", "openai/gpt-4o", "main")
    assert (deployment.weight, deployment.order, deployment.rpm, deployment.tpm) == (3, 1, 500, 200000)
    assert (deployment.capabilities, deployment.tags) == (("vision", "tools"), ("eu",))
    assert deployment.context_window_tokens == 128000
    assert config.aliases == {"gpt-4": "gpt-4o", "newest": "gpt-4"}
    assert config.fallbacks.general == {"gpt-4o": ("openrouter/x",)}
    assert config.fallbacks.context_window == {"gpt-4": ("openrouter/long",)}
    assert config.fallbacks.content_policy == {"openrouter/*": ("gpt-4o",)}
    routing = config.routing
    assert (routing.max_attempts, routing.retry_base_seconds, routing.retry_after_cap_seconds) == (3, 0.5, 0)
    assert (routing.circuit_breaker.failure_threshold, routing.circuit_breaker.cooldown_seconds) == (2, 15)


def test_prices_are_exact_quoted_or_not() -> None:
    prices = load(EVERYTHING).config.models["gpt-4o"].deployments[0].prices
    assert prices is not None
    assert prices.input_usd_per_1m_tokens == Decimal("2.50000000000000000001")
    assert prices.output_usd_per_1m_tokens == Decimal(10)
    assert prices.request_fee_usd == Decimal("0.001")


def test_p95_is_a_hedge_without_seconds() -> None:
    hedge = load(EVERYTHING).config.models["openrouter/*"].hedge
    assert hedge is not None
    assert hedge.after_seconds is None
    assert load(SMALL).config.models["one"].hedge is None


def test_what_is_left_out_is_filled_in() -> None:
    config = load(EVERYTHING).config
    second = config.models["gpt-4o"].deployments[1]
    assert (second.model, second.name) == ("gpt-4o", "local/gpt-4o")
    wildcard = config.models["openrouter/*"]
    assert wildcard.strategy == "priority"  # routing.strategy
    assert wildcard.deployments[0].name == "openrouter/*"
    local = config.providers["local"]
    assert (local.kind, local.usage_in_streams, local.done_marker) == ("openai", "on_request", True)
    assert (local.max_concurrency, local.max_queue, local.queue_timeout_seconds) == (None, 100, 10)


def test_each_kind_has_its_own_url_but_openai_and_azure() -> None:
    text = SMALL.replace("{base_url: http://127.0.0.1:8000/v1}", "{kind: KIND}")
    urls = {kind: load(text.replace("KIND", kind)).config.providers["local"].base_url for kind in BASE_URLS}
    assert all(url is not None and url.startswith("http") for url in urls.values())
    assert (
        load(text.replace("KIND", "anthropic, base_url: null")).config.providers["local"].base_url == urls["anthropic"]
    )


def test_a_deployment_overrides_its_provider_value_by_value() -> None:
    first, second = load(EVERYTHING).config.models["gpt-4o"].deployments
    assert first.timeouts == TimeoutsConfig(
        connect_seconds=1, first_byte_seconds=20, answer_seconds=20, idle_seconds=3, stream_total_seconds=4
    )
    assert first.max_concurrency is None  # null: unlimited, although the provider has a limit
    assert load(EVERYTHING).config.models["openrouter/*"].deployments[0].max_concurrency == 7
    assert second.timeouts == TimeoutsConfig()


def test_settings_give_what_the_file_leaves_open() -> None:
    settings = {
        "connect_timeout_seconds": 11.0,
        "openrouter_timeout_seconds": 12.0,
        "stream_idle_timeout_seconds": 13.0,
        "stream_total_timeout_seconds": 14.0,
        "retry_max_retries": 0,
        "retry_base_seconds": 0.0,
        "retry_after_cap_seconds": 15.0,
        "request_timeout_seconds": 16.0,
        "circuit_breaker_failure_threshold": 17,
        "circuit_breaker_cooldown_seconds": 18.0,
        "llmgateway_port": 1,
    }
    config = load(SMALL, settings).config
    timeouts = TimeoutsConfig(
        connect_seconds=11, first_byte_seconds=12, answer_seconds=12, idle_seconds=13, stream_total_seconds=14
    )
    assert config.providers["local"].timeouts == config.models["one"].deployments[0].timeouts == timeouts
    assert config.routing == RoutingConfig(
        max_attempts=1,
        retry_base_seconds=0,
        retry_after_cap_seconds=15,
        request_timeout_seconds=16,
        circuit_breaker=CircuitBreakerConfig(failure_threshold=17, cooldown_seconds=18),
    )
    assert load(EVERYTHING, settings).config.routing == load(EVERYTHING).config.routing  # the file says it all


@pytest.mark.parametrize(
    ("settings", "of_provider", "of_deployment", "seconds"),
    [
        ({}, {}, {}, 600),
        ({"openrouter_timeout_seconds": 9.0}, {}, {}, 9),
        ({"openrouter_timeout_seconds": 9.0, "answer_timeout_seconds": 90.0}, {}, {}, 90),
        ({"openrouter_timeout_seconds": 9.0}, {"first_byte_seconds": 8}, {}, 8),
        ({"answer_timeout_seconds": 90.0}, {"first_byte_seconds": 8}, {"first_byte_seconds": 7}, 90),
        ({"answer_timeout_seconds": 90.0}, {"answer_seconds": 80}, {"first_byte_seconds": 7}, 80),
        ({}, {"first_byte_seconds": 8}, {"first_byte_seconds": 7}, 7),
        ({}, {"answer_seconds": 80}, {"answer_seconds": 70, "first_byte_seconds": 7}, 70),
    ],
)
def test_a_limit_for_first_bytes_is_one_for_whole_answers_if_these_have_none(
    settings: dict[str, float], of_provider: dict[str, int], of_deployment: dict[str, int], seconds: int
) -> None:
    document = {
        "providers": {"local": {"base_url": "http://h/v1", "timeouts": of_provider}},
        "models": {"one": {"deployments": [{"provider": "local", "timeouts": of_deployment}]}},
    }
    loaded = load(as_yaml(document), settings)
    assert loaded.config.models["one"].deployments[0].timeouts.answer_seconds == seconds
    if not of_provider and not of_deployment:
        assert Settings(**settings).first_byte_of_answer_seconds == seconds  # type: ignore[arg-type]


def test_defaults_are_those_of_the_settings() -> None:
    """So that a file that says nothing changes nothing."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert load(SMALL, defaults).config == load(SMALL).config


def test_references_may_be_part_of_a_text_have_a_default_or_be_escaped() -> None:
    text = SMALL.replace("http://127.0.0.1:8000/v1", '"http://${HOST:-10.0.0.1}:${PORT}/v1"')
    url = load(text, PORT="80").config.providers["local"].base_url
    assert url == "http://10.0.0.1:80/v1"
    assert load(text, PORT="80", HOST="").config.providers["local"].base_url == url  # as in a shell
    headers = SMALL.replace("/v1}", '/v1, headers: {X-A: "$$ $${KEY} $x"}}')
    assert load(headers).config.providers["local"].headers["X-A"].get_secret_value() == "$$ ${KEY} $x"


@pytest.mark.parametrize("resource", ["https://r.openai.azure.com/", "https://r.openai.azure.com", "https://h/a//"])
def test_a_url_of_a_variable_may_end_in_a_slash(resource: str) -> None:
    """As Azure's own pages show it; what the file adds to it would have stood behind two, which is another path."""
    text = SMALL.replace("http://127.0.0.1:8000/v1", '"${RESOURCE}/openai/v1"')
    url = load(text, RESOURCE=resource).config.providers["local"].base_url
    assert url == f"{resource.rstrip('/')}/openai/v1"


@pytest.mark.parametrize("host", ["", "/", "//"])
def test_what_follows_a_host_that_is_missing_does_not_become_one(host: str) -> None:
    """It would be sent the provider's key."""
    text = SMALL.replace("http://127.0.0.1:8000/v1", '"http://${HOST}/v1"')
    with pytest.raises(ConfigErrors, match="must be a URL that begins with http:// or https:// and a host"):
        load(text, HOST=host)


def test_a_variable_cannot_change_what_the_file_says_around_it() -> None:
    text = SMALL.replace("{provider: local}", '{provider: local, tags: ["${TAG}"]}')
    loaded = load(text, TAG='eu"], weight: 9, tags: ["x').config.models["one"].deployments[0]
    assert (loaded.weight, loaded.tags) == (1, ('eu"], weight: 9, tags: ["x',))


def test_a_loaded_configuration_cannot_be_changed_and_shows_no_secret() -> None:
    loaded = load(EVERYTHING)
    with pytest.raises(ValueError, match="frozen"):
        loaded.config.routing.max_attempts = 9
    for shown in (repr(loaded), str(loaded.config), loaded.config.model_dump_json()):
        assert "sk-secret" not in shown


def test_a_file_is_read_as_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_bytes(SMALL.replace("one", "modèle").encode("utf-8-sig"))
    assert list(load_config(path, {}).config.models) == ["modèle"]
    path.write_bytes(b"providers: {}\nmodels: \xff\n")
    with pytest.raises(ConfigErrors, match=r"gateway\.yaml:2: not UTF-8"):
        load_config(path, {})


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"missing\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "missing.yaml", {})
    with pytest.raises(ConfigErrors, match="cannot be read: Is a directory"):
        load_config(tmp_path, {})
