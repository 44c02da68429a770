"""What is in force, and where each value comes from."""

from __future__ import annotations

from proxy.config.showing import show
from tests.config.documents import EVERYTHING, load


def test_each_value_has_its_origin() -> None:
    shown = {path: (value, origin) for path, value, origin in show(load(EVERYTHING, {"connect_timeout_seconds": 7.0}))}
    expected = {
        "providers.openrouter.api_key": ("********", "gateway.yaml:7 (KEY)"),
        "providers.openrouter.headers.HTTP-Referer": ("https://example.com", "gateway.yaml:8"),
        "providers.openrouter.headers.X-Title": ("********", "gateway.yaml:8 (TITLE)"),
        "providers.openrouter.max_concurrency": ("7", "gateway.yaml:10 (LIMIT)"),
        "providers.openrouter.done_marker": ("false", "gateway.yaml:13"),
        "providers.local.kind": ("openai", "default"),
        "providers.local.api_key": ("-", "default"),
        "providers.local.usage_in_streams": ("on_request", "default"),
        "providers.local.timeouts.connect_seconds": ("7", "CONNECT_TIMEOUT_SECONDS"),
        "models.gpt-4o.deployments[0].tags": ("[eu]", "gateway.yaml:2"),
        "models.gpt-4o.deployments[0].prices.input_usd_per_1m_tokens": ("2.50000000000000000001", "gateway.yaml:33"),
        "models.gpt-4o.deployments[0].prices.tiers[0].above_input_tokens": ("200000", "gateway.yaml:45"),
        "models.gpt-4o.deployments[0].prices.tiers[1].input_usd_per_1m_tokens": ("2.75", "gateway.yaml:46"),
        "models.gpt-4o.deployments[1].prices": ("-", "default"),
        "models.gpt-4o.deployments[0].timeouts.connect_seconds": ("1", "gateway.yaml:9"),
        "models.gpt-4o.deployments[0].timeouts.first_byte_seconds": ("20", "gateway.yaml:49"),
        "models.gpt-4o.deployments[1].timeouts.connect_seconds": ("7", "CONNECT_TIMEOUT_SECONDS"),
        "models.gpt-4o.deployments[1].name": ("local/gpt-4o", "default"),
        "models.gpt-4o.hedge.after_seconds": ("2", "gateway.yaml:22"),
        'models."openrouter/*".hedge': ("p95", "gateway.yaml:53"),
        'models."openrouter/*".strategy': ("priority", "gateway.yaml:61"),
        'models."openrouter/*".deployments[0].max_concurrency': ("7", "gateway.yaml:10 (LIMIT)"),
        "aliases.gpt-4": ("gpt-4o", "gateway.yaml:55"),
        "fallbacks.general.gpt-4o": ("[openrouter/x]", "gateway.yaml:57"),
        "routing.circuit_breaker.cooldown_seconds": ("15", "gateway.yaml:66"),
        "model_groups.cheap": ("[gpt-4, openrouter/small-*, auto]", "gateway.yaml:68"),
    }
    assert {path: shown[path] for path in expected} == expected


def test_no_secret_is_shown() -> None:
    assert "sk-secret" not in str(list(show(load(EVERYTHING))))
