"""Configurations to load in tests: one that uses every key, and any number of others."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from proxy.config.loading import LoadedConfig, parse_config
from proxy.config.problems import ConfigErrors

ENVIRONMENT = {"KEY": "sk-secret-1", "TITLE": "sk-secret-2", "LIMIT": "7", "EMPTY": ""}

EVERYTHING = """\
x-shared: &eu
  tags: [eu]
providers:
  openrouter:
    kind: openrouter
    base_url: https://openrouter.ai/api/v1
    api_key: ${KEY}
    headers: {HTTP-Referer: https://example.com, X-Title: "${TITLE}"}
    timeouts: {connect_seconds: 1, first_byte_seconds: 2.5, idle_seconds: 3, stream_total_seconds: 4}
    max_concurrency: ${LIMIT}
    max_queue: 9
    queue_timeout_seconds: 8
    done_marker: false
    usage_in_streams: never
    retry_budget: {percent: 10, min_requests: 2}
  local:
    base_url: http://127.0.0.1:8000/v1
models:
  gpt-4o:
    strategy: latency
    sticky: true
    hedge: {after_seconds: 2.0}
    deployments:
      - <<: *eu
        provider: openrouter
        model: openai/gpt-4o
        name: main
        weight: 3
        order: 1
        rpm: 500
        tpm: 200000
        prices:
          input_usd_per_1m_tokens: 2.50000000000000000001
          output_usd_per_1m_tokens: "10"
          cached_input_usd_per_1m_tokens: 1.25
          cache_write_usd_per_1m_tokens: 3
          audio_input_usd_per_1m_tokens: 40
          image_input_usd_per_1m_tokens: 2
          reasoning_usd_per_1m_tokens: 11
          cache_write_1h_usd_per_1m_tokens: 4
          audio_output_usd_per_1m_tokens: 80
          image_output_usd_per_1m_tokens: 30
          request_fee_usd: 0.001
          tiers:
            - {above_input_tokens: 200000, input_usd_per_1m_tokens: 5, output_usd_per_1m_tokens: "15"}
            - {service_tier: flex, above_input_tokens: 200000, input_usd_per_1m_tokens: 2.75, request_fee_usd: 0}
        context_window_tokens: 128000
        capabilities: [vision, tools]
        timeouts: {first_byte_seconds: 20}
        max_concurrency: null
      - provider: local
  "openrouter/*":
    hedge: p95
    deployments: [{provider: openrouter, model: "*"}]
aliases: {gpt-4: gpt-4o, newest: gpt-4}
fallbacks:
  general: {gpt-4o: [openrouter/x]}
  context_window: {gpt-4: [openrouter/long]}
  content_policy: {"openrouter/*": [gpt-4o]}
routing:
  strategy: priority
  max_attempts: 3
  retry_base_seconds: 0.5
  retry_after_cap_seconds: 0
  request_timeout_seconds: 60
  circuit_breaker: {failure_threshold: 2, cooldown_seconds: 15}
model_groups:
  cheap: [gpt-4, "openrouter/small-*", auto]
"""

SMALL = """\
providers:
  local: {base_url: http://127.0.0.1:8000/v1}
models:
  one:
    deployments: [{provider: local}]
"""


def load(text: str, settings: dict[str, Any] | None = None, **environment: str) -> LoadedConfig:
    """The configuration of a text that a file named gateway.yaml would hold."""
    return parse_config(text, "gateway.yaml", {**ENVIRONMENT, **environment}, settings)


def problems(text: str, **environment: str) -> list[str]:
    """The lines that tell what is wrong with it; none if nothing is."""
    try:
        parse_config(text, "gateway.yaml", {**ENVIRONMENT, **environment})
    except ConfigErrors as errors:
        return str(errors).splitlines()
    return []


def as_yaml(document: Any) -> str:
    """JSON is YAML."""
    return json.dumps(document, ensure_ascii=False, indent=1)


_TEXT = st.text("abcdefXYZ019-_.:/ é中", min_size=1, max_size=12).filter(lambda text: text == text.strip())
_MODEL = st.text("abcXYZ019-_.:/", min_size=1, max_size=12).filter(lambda text: text != "auto")
_PROVIDER = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
_SECONDS = st.one_of(st.integers(1, 10_000), st.floats(0.001, 10_000))
_COUNT = st.integers(0, 10**9)
_POSITIVE = st.integers(1, 10**9)
_PRICE = st.one_of(
    st.integers(0, 10**8),
    st.integers(0, 10**8).map(lambda number: number / 1000),
    st.decimals(0, 10**8, places=6).map(str),
)
_STRATEGY = st.sampled_from(["weighted", "priority", "least-busy", "latency", "cost", "usage"])
_TIMEOUTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("connect_seconds", "first_byte_seconds", "answer_seconds", "idle_seconds", "stream_total_seconds"), _SECONDS
    ),
)
_TIER_PRICES = {"output_usd_per_1m_tokens": _PRICE, "cached_input_usd_per_1m_tokens": st.none() | _PRICE}
_LONG_TIER = st.fixed_dictionaries(
    {"above_input_tokens": _POSITIVE, "input_usd_per_1m_tokens": _PRICE}, optional=_TIER_PRICES
)
_SERVICE_TIER = st.fixed_dictionaries(
    {"service_tier": st.sampled_from(["flex", "priority", "scale-1.x"]), "input_usd_per_1m_tokens": _PRICE},
    optional={**_TIER_PRICES, "above_input_tokens": st.none()},
)
_TIERS: st.SearchStrategy[list[dict[str, Any]]] = st.one_of(
    st.just([]), _LONG_TIER.map(lambda tier: [tier]), st.tuples(_LONG_TIER, _SERVICE_TIER).map(list)
)
_PRICES = st.fixed_dictionaries(
    {"input_usd_per_1m_tokens": _PRICE, "output_usd_per_1m_tokens": _PRICE},
    optional={
        "reasoning_usd_per_1m_tokens": st.none() | _PRICE,
        "request_fee_usd": _PRICE,
        "cache_write_1h_usd_per_1m_tokens": _PRICE,
        "audio_output_usd_per_1m_tokens": _PRICE,
        "tiers": _TIERS,
    },
)
_PROVIDER_SECTION = st.fixed_dictionaries(
    {
        "base_url": st.sampled_from(
            ["http://127.0.0.1/v1", "https://a.example/x/y", "https://[::1]:80", "http://h:65535"]
        )
    },
    optional={
        "kind": st.sampled_from(["openrouter", "openai", "azure", "mistral-openai", "anthropic", "google"]),
        "api_key": st.none() | st.just("${KEY}"),
        "headers": st.dictionaries(st.sampled_from(["X-Title", "x-a", "X-B"]), _TEXT | st.just("Bearer ${KEY}")),
        "timeouts": _TIMEOUTS,
        "max_concurrency": st.none() | _POSITIVE,
        "max_queue": _COUNT,
        "queue_timeout_seconds": _SECONDS,
        "done_marker": st.booleans(),
        "usage_in_streams": st.sampled_from(["always", "on_request", "never"]),
        "retry_budget": st.fixed_dictionaries(
            {}, optional={"percent": st.floats(0, 100), "min_requests": st.integers(0, 10)}
        ),
    },
)
_MODEL_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "strategy": _STRATEGY,
    "sticky": st.booleans(),
    "hedge": st.none() | st.just("p95") | st.fixed_dictionaries({"after_seconds": st.none() | _SECONDS}),
}
_DEPLOYMENT_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "model": _MODEL,
    "weight": st.integers(1, 100) | st.floats(0.001, 100),
    "order": st.integers(0, 100),
    "rpm": st.none() | _POSITIVE,
    "tpm": _POSITIVE,
    "prices": st.none() | _PRICES,
    "context_window_tokens": _POSITIVE,
    "capabilities": st.lists(st.sampled_from(["vision", "audio", "files", "tools", "json_schema"]), unique=True),
    "tags": st.lists(_TEXT, unique=True, max_size=3),
    "timeouts": _TIMEOUTS,
    "max_concurrency": st.none() | _POSITIVE,
}
_ROUTING = st.fixed_dictionaries(
    {},
    optional={
        "strategy": _STRATEGY,
        "max_attempts": st.integers(1, 20),
        "retry_base_seconds": st.floats(0, 60),
        "retry_after_cap_seconds": st.floats(0, 10_000),
        "request_timeout_seconds": _SECONDS,
        "circuit_breaker": st.fixed_dictionaries(
            {}, optional={"failure_threshold": _POSITIVE, "cooldown_seconds": _SECONDS}
        ),
    },
)


@st.composite
def valid_documents(draw: st.DrawFn) -> dict[str, Any]:
    """Configurations that are right, in all parts."""
    providers = draw(st.dictionaries(_PROVIDER, _PROVIDER_SECTION, min_size=1, max_size=3))
    names = draw(st.lists(_MODEL, min_size=1, max_size=5, unique=True))
    models = names[: draw(st.integers(1, len(names)))]
    document: dict[str, Any] = {"providers": providers, "models": {}}
    number = 0
    for name in models:
        deployments = []
        for _ in range(draw(st.integers(1, 3))):
            number += 1
            required = {"provider": st.sampled_from(sorted(providers)), "name": st.just(f"d{number}")}
            deployments.append(draw(st.fixed_dictionaries(required, optional=_DEPLOYMENT_OPTIONS)))
        document["models"][name] = {
            "deployments": deployments,
            **draw(st.fixed_dictionaries({}, optional=_MODEL_OPTIONS)),
        }
    if aliases := names[len(models) :]:
        document["aliases"] = {alias: draw(st.sampled_from(models)) for alias in aliases}
    if draw(st.booleans()):
        document["model_groups"] = {"cheap": [*draw(st.sets(st.sampled_from([*names, "auto"]), min_size=1))]}
    if len(models) > 1 and draw(st.booleans()):
        document["fallbacks"] = {
            kind: {models[0]: models[1:]} for kind in draw(st.sets(st.sampled_from(["general", "context_window"])))
        }
    if draw(st.booleans()):
        document["routing"] = draw(_ROUTING)
    return document
