"""LiteLLM's configuration becomes one that loads, and what is lost is told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config.litellm.converting import Conversion, convert
from proxy.config.loading import parse_config
from proxy.config.problems import ConfigErrors
from proxy.config.schema import DeploymentConfig, GatewayConfig, PricesConfig, RoutingConfig

FILE = """\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-eu
      api_base: https://europe.openai.azure.com/
      api_key: os.environ/AZURE_API_KEY_EU
      api_version: "2024-02-01"
      rpm: 6
      tags: [eu]
    model_info: {base_model: azure/gpt-4o}
  - model_name: gpt-4o
    litellm_params:
      model: azure/gpt-4o-ca
      api_base: os.environ/AZURE_API_BASE_CA
      api_key: sk-plain-text
      rpm: "12"
      tpm: 1000
      timeout: 900
      stream_timeout: 60
      max_parallel_requests: 5
      input_cost_per_token: 0.0000025
      output_cost_per_token: 1e-5
  - model_name: claude
    litellm_params:
      model: claude-sonnet-4
      extra_headers: {X-Team: a, Authorization: Bearer abc}
    model_info:
      id: my-claude
      max_input_tokens: 200000
      supports_vision: false
      cache_read_input_token_cost: 0.0000003
      team_id: x
  - model_name: bedrock-claude
    litellm_params: {model: bedrock/converse/anthropic.claude-v2, aws_region_name: us-east-1}
  - model_name: local
    litellm_params: {model: hosted_vllm/meta-llama/Llama-3, api_base: http://127.0.0.1:8000/v1, api_key: none}
  - model_name: local
    litellm_params: {model: hosted_vllm/meta-llama/Llama-3, api_base: http://127.0.0.1:8000/v1, order: 2}
  - model_name: "openrouter/*"
    litellm_params: {model: "openrouter/*"}
  - model_name: vertex
    litellm_params: {model: vertex_ai/gemini-pro}
  - model_name: embed
    litellm_params: {model: openai/text-embedding-3-small}
    model_info: {mode: embedding}
  - model_name: auto
    litellm_params: {model: openai/gpt-4o}
litellm_settings:
  num_retries: 9
  request_timeout: 10
  drop_params: true
  success_callback: [langfuse]
  fallbacks: [{"gpt-4o": ["claude", vertex]}, {"gpt-4o-mini": [claude]}]
  context_window_fallbacks: [{"claude": ["openrouter/big"]}]
  default_fallbacks: [local]
router_settings:
  routing_strategy: usage-based-routing-v2
  num_retries: 2
  retry_after: 5
  allowed_fails: 3
  cooldown_time: 30
  default_max_parallel_requests: 70
  model_group_alias: {gpt-4: gpt-4o, secret: {model: gpt-4o, hidden: true}, lost: nothing}
  routing_groups: [{group_name: g, models: [claude], routing_strategy: latency-based-routing}]
  redis_host: os.environ/REDIS_HOST
general_settings:
  master_key: sk-1234
  database_url: postgresql://x:secret@y/z
environment_variables:
  FOO: secretbar
other: 1
"""


class _AnyVariable(Mapping[str, str]):
    """An environment in which every variable is a URL, which may be a key, too; but for NUMBER. No file is one."""

    def __getitem__(self, name: str) -> str:
        if name.endswith("_FILE"):
            raise KeyError(name)
        return "5" if name == "NUMBER" else "http://127.0.0.1"

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def loaded(conversion: Conversion) -> GatewayConfig:
    return parse_config(conversion.text, "gateway.yaml", _AnyVariable()).config


def converted(text: str) -> tuple[GatewayConfig, list[str]]:
    conversion = convert(text, "config.yaml")
    return loaded(conversion), [loss.text("config.yaml") for loss in conversion.losses]


def one(**params: Any) -> DeploymentConfig:
    """The deployment that these litellm_params become."""
    entry = {"model_name": "m", "litellm_params": params}
    return converted(json.dumps({"model_list": [entry]}))[0].models["m"].deployments[0]


def test_entries_of_one_name_are_the_deployments_of_one_model() -> None:
    config, _ = converted(FILE)
    first, second = config.models["gpt-4o"].deployments
    assert (first.provider, first.model, first.rpm, first.tags) == ("azure", "gpt-4o-eu", 6, ("eu",))
    assert (second.provider, second.model, second.rpm, second.tpm) == ("azure-2", "gpt-4o-ca", 12, 1000)
    assert (second.timeouts.answer_seconds, second.timeouts.first_byte_seconds, second.max_concurrency) == (900, 60, 5)
    assert first.timeouts.answer_seconds == first.timeouts.first_byte_seconds == 10  # litellm_settings.request_timeout
    assert first.max_concurrency == 70
    assert second.prices is not None
    assert second.prices.input_usd_per_1m_tokens == Decimal("2.5")
    assert second.prices.output_usd_per_1m_tokens == Decimal(10)


def test_prices_of_a_token_become_those_of_a_million() -> None:
    text = """
model_list:
  - model_name: x
    litellm_params: {model: openai/x, input_cost_per_token: 3e-6, output_cost_per_token: 1e-5}
    model_info:
      cache_creation_input_token_cost_above_1hr: 6e-6
      input_cost_per_image_token: 4e-6
      output_cost_per_audio_token: 8e-5
      output_cost_per_image_token: 3e-5
"""
    (deployment,) = converted(text)[0].models["x"].deployments
    assert deployment.prices == PricesConfig(
        input_usd_per_1m_tokens=Decimal(3),
        output_usd_per_1m_tokens=Decimal(10),
        cache_write_1h_usd_per_1m_tokens=Decimal(6),
        image_input_usd_per_1m_tokens=Decimal(4),
        audio_output_usd_per_1m_tokens=Decimal(80),
        image_output_usd_per_1m_tokens=Decimal(30),
    )


def test_prices_of_long_requests_and_of_service_tiers_become_tiers() -> None:
    text = """
model_list:
  - model_name: x
    litellm_params: {model: openai/x, input_cost_per_token: 3e-6, output_cost_per_token: 1e-5}
    model_info:
      input_cost_per_token_above_200k_tokens: 6e-6
      output_cost_per_token_above_200k_tokens: 1.5e-5
      cache_creation_input_token_cost_above_1hr_above_200k_tokens: 2e-5
      cache_read_input_token_cost_flex: 1e-7
      output_cost_per_token_above_272k_tokens_priority: 4e-5
      input_cost_per_token_priority_above_272k_tokens: 1e-5
      input_cost_per_token_above_128k_tokens: null
      input_cost_per_token_batches: 1e-6
"""
    config, told = converted(text)
    (deployment,) = config.models["x"].deployments
    assert deployment.prices is not None
    assert [tier.model_dump(exclude_none=True) for tier in deployment.prices.tiers] == [
        {
            "above_input_tokens": 200_000,
            "input_usd_per_1m_tokens": 6,
            "output_usd_per_1m_tokens": 15,
            "cache_write_1h_usd_per_1m_tokens": 20,
        },
        {"service_tier": "flex", "cached_input_usd_per_1m_tokens": Decimal("0.1")},
        {
            "service_tier": "priority",
            "above_input_tokens": 272_000,
            "input_usd_per_1m_tokens": 10,
            "output_usd_per_1m_tokens": 40,
        },
    ]
    assert [line.split(": ")[1] for line in told] == ["model_list[0].model_info.input_cost_per_token_batches"]


def test_tiers_without_prices_of_other_requests_are_told_to_be_lost() -> None:
    text = """
model_list:
  - model_name: x
    litellm_params: {model: openai/x, input_cost_per_token: 3e-6, output_cost_per_token_flex: 1e-5}
"""
    config, told = converted(text)
    assert config.models["x"].deployments[0].prices is None
    assert [line.split(": ")[1].rpartition(".")[2] for line in told] == [
        "input_cost_per_token",
        "output_cost_per_token_flex",
    ]


def test_providers_are_gathered_and_their_keys_are_references() -> None:
    conversion = convert(FILE, "config.yaml")
    assert "base_url: https://europe.openai.azure.com/openai/v1\n    api_key: ${AZURE_API_KEY_EU}" in conversion.text
    assert "base_url: ${AZURE_API_BASE_CA}/openai/v1\n    api_key: ${AZURE_API_KEY}" in conversion.text
    assert "api_key: ${ANTHROPIC_API_KEY}" in conversion.text
    providers = loaded(conversion).providers
    assert set(providers) == {"azure", "azure-2", "anthropic", "hosted_vllm", "openrouter"}
    assert (providers["azure"].kind, providers["anthropic"].kind) == ("azure", "anthropic")
    assert providers["hosted_vllm"].api_key is None
    assert {name: value.get_secret_value() for name, value in providers["anthropic"].headers.items()} == {"X-Team": "a"}


def test_streams_that_end_without_done_are_whole() -> None:
    """Perplexity's do, but for those of some models."""
    models = ("perplexity/sonar", "xai/grok-4")
    entries = [{"model_name": model, "litellm_params": {"model": model}} for model in models]
    config, _ = converted(json.dumps({"model_list": entries}))
    assert {name: provider.done_marker for name, provider in config.providers.items()} == {
        "perplexity": False,
        "xai": True,
    }


def test_a_server_that_refuses_stream_options_is_not_asked_with_them() -> None:
    """Cohere's surface that is OpenAI's."""
    entries = [{"model_name": model, "litellm_params": {"model": model}} for model in ("cohere/a", "cohere_chat/b")]
    providers = converted(json.dumps({"model_list": entries}))[0].providers
    assert {(one.base_url, one.usage_in_streams, one.done_marker) for one in providers.values()} == {
        ("https://api.cohere.ai/compatibility/v1", "never", False)
    }


def test_both_of_mistrals_addresses_speak_its_dialect() -> None:
    """It refuses what others are asked for a stream's usage with."""
    entries = [{"model_name": name, "litellm_params": {"model": f"{name}/x"}} for name in ("mistral", "codestral")]
    providers = converted(json.dumps({"model_list": entries}))[0].providers
    assert {name: provider.kind for name, provider in providers.items()} == dict.fromkeys(providers, "mistral-openai")
    assert providers["codestral"].base_url == "https://codestral.mistral.ai/v1"


@pytest.mark.parametrize(
    ("router", "params", "answer", "first_byte"),
    [
        ("{}", ", stream_timeout: 5", 600, 5),
        ("{timeout: 90, stream_timeout: 9}", "", 90, 9),
        ("{timeout: 90, stream_timeout: 9}", ", timeout: 80", 80, 9),
        ("{timeout: 90}", ", timeout: 80", 80, 80),
        ("{timeout: 90, stream_timeout: 9}", ", stream_timeout: 8", 90, 8),
        ("{stream_timeout: 9}", ", timeout: 80, stream_timeout: 8", 80, 8),
    ],
)
def test_streams_and_whole_answers_have_limits_of_their_own(
    router: str, params: str, answer: int, first_byte: int
) -> None:
    entry = f"{{model_name: m, litellm_params: {{model: openai/x{params}}}}}"
    config, told = converted(f"model_list: [{entry}]\nrouter_settings: {router}\n")
    timeouts = config.models["m"].deployments[0].timeouts
    assert (timeouts.answer_seconds, timeouts.first_byte_seconds) == (answer, first_byte)
    assert told == []


def test_where_no_time_limit_is_set_answers_may_take_as_long_as_a_request() -> None:
    """LiteLLM waits 6000 seconds. After 30, the default here, whole answers that take longer were asked for again."""
    text = "{model_name: m, litellm_params: {model: openai/x%s}}"
    config, told = converted(f"model_list:\n- {text % ''}\n- {text % ', timeout: 5'}\n")
    assert [one.timeouts.first_byte_seconds for one in config.models["m"].deployments] == [600, 5]
    assert config.routing.request_timeout_seconds == 600
    assert told == []


def test_wildcards_names_and_orders() -> None:
    config, _ = converted(FILE)
    assert config.models["openrouter/*"].deployments[0].model == "*"
    names = [deployment.name for deployment in config.models["local"].deployments]
    assert names == ["hosted_vllm/meta-llama/Llama-3", "hosted_vllm/meta-llama/Llama-3#2"]
    assert config.models["local"].strategy == "priority"
    assert [deployment.order for deployment in config.models["local"].deployments] == [3, 2]
    claude = config.models["claude"].deployments[0]
    assert (claude.name, claude.model, claude.context_window_tokens) == ("my-claude", "claude-sonnet-4", 200000)
    assert claude.capabilities == ("audio", "files", "tools", "json_schema")


def test_routing_fallbacks_and_aliases() -> None:
    config, _ = converted(FILE)
    assert config.models["gpt-4o"].strategy == "usage"
    assert config.models["claude"].strategy == "latency"
    assert config.routing.max_attempts == 3  # router_settings before litellm_settings
    assert config.routing.retry_base_seconds == 5
    assert config.routing.request_timeout_seconds == 900  # room for the longest call
    assert config.routing.circuit_breaker.failure_threshold == 4
    assert config.routing.circuit_breaker.cooldown_seconds == 30
    assert config.aliases == {"gpt-4": "gpt-4o", "secret": "gpt-4o"}
    assert config.fallbacks.general == {"gpt-4o": ("claude",), "*": ("local",)}
    assert config.fallbacks.context_window == {"claude": ("openrouter/big",)}


def test_what_is_lost_is_told_with_line_and_reason_and_written_into_the_file() -> None:
    conversion = convert(FILE, "config.yaml")
    told = [loss.text("config.yaml") for loss in conversion.losses]
    for expected in (
        "config.yaml:7: model_list[0].litellm_params.api_version: is not needed",
        "config.yaml:15: model_list[1].litellm_params.api_key: is a secret in the file: put it into the environment",
        "config.yaml:26: model_list[2].litellm_params.extra_headers.Authorization: is a secret in the file",
        "config.yaml:31: model_list[2].model_info.cache_read_input_token_cost: prices need both",
        "config.yaml:32: model_list[2].model_info.team_id: has no counterpart here",
        "config.yaml:34: model_list[3].litellm_params.model: there is no provider here for 'bedrock/",
        "config.yaml:42: model_list[7].litellm_params.model: there is no provider here for 'vertex_ai/gemini-pro'",
        "config.yaml:43: model_list[8]: is for embedding",
        "config.yaml:46: model_list[9]: the name 'auto' is reserved",
        "config.yaml:51: litellm_settings.drop_params: nothing is left out of requests",
        "config.yaml:52: litellm_settings.success_callback: nothing is called here: metrics are at /metrics",
        "config.yaml:53: litellm_settings.fallbacks[0].gpt-4o[1]: is no model that could be carried over",
        "config.yaml:53: litellm_settings.fallbacks[1].gpt-4o-mini: is no model that could be carried over",
        "config.yaml:57: router_settings.routing_strategy: models with an order go by that alone",
        "config.yaml:63: router_settings.model_group_alias.lost: leads to no model",
        "config.yaml:63: router_settings.model_group_alias.secret.hidden: all names are listed",
        "config.yaml:65: router_settings.redis_host: set LLMGATEWAY_VALKEY_URL in the environment",
        "config.yaml:67: general_settings.master_key: set LLMGATEWAY_MASTER_KEY",
        "config.yaml:68: general_settings.database_url: set DATABASE_URL",
        "config.yaml:70: environment_variables.FOO: set it in the environment",
        "config.yaml:71: other: has no counterpart here",
    ):
        assert [line for line in told if line.startswith(expected)], expected
    assert len(told) == 21
    assert all(f"# - {line}\n" in conversion.text for line in told)


MODEL = "model_list: [{model_name: m, litellm_params: {model: openai/x}}]\n"


@pytest.mark.parametrize(
    ("section", "instead"),
    [
        ("router_settings: {enable_tag_filtering: true}", "requests name tags in the header x-gateway-tags here"),
        ("general_settings: {store_model_in_db: true}", "models that were added in the database are not in this file"),
        ("litellm_settings: {callbacks: [prometheus, langfuse]}", "nothing is called here"),
        ("litellm_settings: {callbacks: [{x: y}]}", "nothing is called here"),
        ("litellm_settings: {max_budget: 100}", "budgets are made by `llmgateway budgets create`"),
        ("general_settings: {enable_jwt_auth: true}", "set OIDC_ISSUER, OIDC_AUDIENCE and OIDC_ROLES"),
        ("include: [models.yaml]", "other files are not read: write what they hold into this one first"),
        ("guardrails: [{guardrail_name: pii}]", "nobody looks into prompts and answers here"),
    ],
)
def test_what_has_no_counterpart_is_told_with_what_to_do(section: str, instead: str) -> None:
    (line,) = converted(f"{MODEL}{section}\n")[1]
    assert f": {instead}" in line


def test_what_is_kept_of_a_file_without_models_is_not_told_to_be_lost() -> None:
    with pytest.raises(ConfigErrors) as refused:
        convert("model_list: []\nrouter_settings: {timeout: 5, default_max_parallel_requests: 6}\n", "config.yaml")
    assert [problem.path for problem in refused.value.problems] == [("model_list",)]


@pytest.mark.parametrize(
    "section",
    [
        "litellm_settings: {callbacks: [prometheus], service_callback: [prometheus_system], success_callback: []}",
        "litellm_settings: {cache: false, json_logs: false, telemetry: false, turn_off_message_logging: true}",
        "general_settings: {store_model_in_db: false, store_prompts_in_spend_logs: false, alerting: []}",
        "router_settings: {timeout: 5, fallbacks: [], model_group_alias: {}}\nlitellm_settings: {request_timeout: 6}",
    ],
)
def test_what_is_off_or_true_anyway_is_no_loss(section: str) -> None:
    assert converted(f"{MODEL}{section}\n")[1] == []


def test_parameters_that_are_added_to_requests_are_told() -> None:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/x", "reasoning_effort": "low", "top_k": 5}}
    _, told = converted(json.dumps({"model_list": [entry]}))
    assert len(told) == 2
    assert all(line.endswith("requests go to the model as they come: clients say it themselves") for line in told)


def test_what_many_models_lose_for_the_same_reason_is_told_once() -> None:
    """It made hundreds of lines of a dozen, among which those of models that are lost could not be seen."""
    names = ("openai/a", "openai/b", "bedrock/c", "bedrock/d", "openai/e")
    entries = "".join(f"- model_name: m\n  litellm_params: {{model: {name}, cooldown_time: 5}}\n" for name in names)
    text = f"model_list:\n{entries}litellm_settings: {{fallbacks: [{{m: [x, y]}}]}}\n"
    told = [line.partition(": ")[2] for line in converted(text)[1]]
    assert told[0].startswith("model_list[0].litellm_params.cooldown_time: is the same for all deployments")
    assert told[0].endswith("cooldown_seconds (and in 2 more, the last in line 11)")
    assert [line.partition(": ")[0] for line in told[1:]] == [
        "model_list[2].litellm_params.model",
        "model_list[3].litellm_params.model",
        "litellm_settings.fallbacks[0].m[0]",
        "litellm_settings.fallbacks[0].m[1]",
    ]


def test_access_groups_become_model_groups() -> None:
    """Keys allow both by their names, here as `group:name`."""
    groups = {"a": ["cheap", "all"], "b": ["all", "no name!", 5], "a*": ["cheap"]}
    entries = [
        {"model_name": name, "litellm_params": {"model": "openai/x"}, "model_info": {"access_groups": groups[name]}}
        for name in ("a", "b", "a", "a*")
    ]
    config, told = converted(json.dumps({"model_list": entries}))
    assert config.model_groups == {"cheap": ("a", "a*"), "all": ("a", "b")}
    assert [line.split(": ")[1] for line in told] == [
        "model_list[1].model_info.access_groups[1]",
        "model_list[1].model_info.access_groups[2]",
    ]


def test_parameters_that_were_to_be_dropped_are_told_of_where_they_were() -> None:
    """A request with `seed` was served by Anthropic there, and is refused here."""
    entry = {"model_name": "m", "litellm_params": {"model": "anthropic/x", "drop_params": True}}
    other = {"model_name": "n", "litellm_params": {"model": "anthropic/x", "drop_params": False}}
    _, told = converted(json.dumps({"model_list": [entry, other], "litellm_settings": {"drop_params": False}}))
    assert [line.partition(": ")[2].partition(": nothing is left out")[0] for line in told] == [
        "model_list[0].litellm_params.drop_params"
    ]


def test_credentials_of_a_list_are_those_of_the_deployments_that_name_them() -> None:
    """They had other providers' address and key: the usual variables'."""
    values = {"api_key": "os.environ/KEY_EU", "api_base": "https://eu.openai.azure.com", "api_version": "2024-02-01"}
    credential = {"credential_name": "eu", "credential_values": values, "credential_info": {"description": "mine"}}
    named = [{"model": "azure/a", "litellm_credential_name": name} for name in ("eu", "nobody")]
    entries = [{"model_name": params["model"], "litellm_params": params} for params in named]
    conversion = convert(json.dumps({"model_list": entries, "credential_list": [credential]}), "config.yaml")
    assert "base_url: https://eu.openai.azure.com/openai/v1\n    api_key: ${KEY_EU}" in conversion.text
    assert [loss.text("config.yaml").partition(": ")[2].partition(": ")[0] for loss in conversion.losses] == [
        "model_list[0].litellm_params.api_version",
        "model_list[1].litellm_params.litellm_credential_name",
    ]


def test_a_provider_that_is_not_known_is_told_of_and_gets_no_key_of_another() -> None:
    """Its name was taken for a part of the model's, and OpenAI's key would have gone there."""
    params = {"model": "xinference/llama", "api_base": "http://127.0.0.1:9997/v1"}
    config, told = converted(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}))
    assert config.models["m"].deployments[0].model == "llama"
    assert config.providers["openai_compatible"].api_key is None
    assert [line for line in told if "'xinference' is not known here" in line] == told


@pytest.mark.parametrize(
    ("url", "provider"),
    [("https://api.deepinfra.com/v1/openai", "deepinfra"), ("https://api.mistral.ai/v1", "mistral")],
)
def test_a_name_without_a_prefix_is_whole_at_a_provider_that_its_url_tells(url: str, provider: str) -> None:
    """LiteLLM knows these by their URLs; half of the name would be a model that nobody serves there."""
    params = {"model": "meta-llama/Llama-3.3-70B-Instruct", "api_base": url}
    config, told = converted(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}))
    deployment = config.models["m"].deployments[0]
    assert (deployment.provider, deployment.model, told) == (provider, params["model"], [])
    assert config.providers[provider].base_url == url


@pytest.mark.parametrize("url", ["<your-endpoint>", "h:8000/v1", "https://h/v1?key=1", 5])
def test_a_deployment_without_a_usable_url_is_left_out(url: Any) -> None:
    """Its requests went to the provider's usual one, with the prompts of one's own server and a key of another."""
    mine = {"model_name": "mine", "litellm_params": {"model": "openai/x", "api_base": url}}
    other = {"model_name": "other", "litellm_params": {"model": "openai/y"}}
    config, told = converted(json.dumps({"model_list": [mine, other]}))
    assert set(config.models) == {"other"}
    assert told == [
        "config.yaml:1: model_list[0].litellm_params.api_base: is no URL of a provider, so the deployment is left out"
    ]


def test_what_a_template_fills_in_comes_from_the_environment() -> None:
    """LiteLLM reads no ${NAME}, so a tool fills them in before; they were secrets in the file, and no URLs."""
    params = {
        "model": "openai/x",
        "api_base": "https://${HOST}/v1",
        "api_key": "${KEY}",
        "extra_headers": {"Authorization": "Bearer ${TOKEN}", "X-Odd": "${not one}"},
    }
    conversion = convert(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}), "config.yaml")
    assert "base_url: https://${HOST}/v1\n    api_key: ${KEY}\n" in conversion.text
    assert "Authorization: Bearer ${TOKEN}\n      X-Odd: $${not one}\n" in conversion.text
    assert conversion.losses == ()
    assert loaded(conversion).providers["openai"].headers["X-Odd"].get_secret_value() == "${not one}"


@pytest.mark.parametrize("key", ["${KEY:-sk-plain}", "a${KEY}"])
def test_a_key_that_is_more_than_a_reference_is_a_secret_in_the_file(key: str) -> None:
    entry = {"model_name": "m", "litellm_params": {"model": "openai/x", "api_key": key}}
    config, told = converted(json.dumps({"model_list": [entry]}))
    assert config.providers["openai"].api_key is not None
    assert [line.partition(": put it into")[0] for line in told] == [
        "config.yaml:1: model_list[0].litellm_params.api_key: is a secret in the file"
    ]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("openai/responses/o1-pro", "'openai/responses/o1-pro' asks for responses; this gateway serves chat"),
        ("azure/responses/d", "'azure/responses/d' asks for responses"),
        (
            "cohere_chat/command-r",
            "there is no provider here for 'cohere_chat/command-r'; if it is served by OpenAI's API",
        ),
        ("bedrock/converse/x", "there is no provider here for 'bedrock/converse/x'; if it is served by OpenAI's API"),
        ("vertex_ai/gemini-2.5-pro", "there is no provider here for 'vertex_ai/gemini-2.5-pro'; gemini/ serves it"),
        ("os.environ/MODEL", r"'\$\{MODEL\}' comes from the environment: write it out"),
    ],
)
def test_what_asks_by_another_api_is_not_carried_over(model: str, said: str) -> None:
    entry = {"model_name": "m", "litellm_params": {"model": model, "api_base": "http://h/v1"}}
    with pytest.raises(ConfigErrors, match=said):
        convert(json.dumps({"model_list": [entry]}), "config.yaml")


@pytest.mark.parametrize(
    ("model", "base_model"),
    [("openai/text-embedding-3-small", None), ("azure/mine", "azure/whisper-1"), ("mistral/mistral-embed", None)],
)
def test_what_is_no_chat_model_by_its_name_is_told(model: str, base_model: str | None) -> None:
    """LiteLLM serves it by another route; it was carried over as a model that refuses every request, and not told."""
    params, info = {"model": model}, {"base_model": base_model}
    entry = {"model_name": "m", "litellm_params": params, "model_info": info}
    chat = {"model_name": "chat", "litellm_params": params, "model_info": {**info, "mode": "chat"}}
    config, told = converted(json.dumps({"model_list": [entry, chat]}))
    assert set(config.models) == {"chat"}
    (line,) = told
    assert line.endswith(f"[0]: '{model}' is no chat model by its name; if it is one, set model_info.mode to chat")


@pytest.mark.parametrize("model", ["gemini/gemini-2.5-flash-image", "openai/gpt-4o-audio-preview", "groq/ttsx-1"])
def test_chat_models_that_are_called_nearly_so_are_carried_over(model: str) -> None:
    assert one(model=model).model == model.partition("/")[2]


def test_of_what_is_given_twice_the_last_counts_as_it_does_for_litellm() -> None:
    """Its reader says nothing of that, so such files run; they were refused, over a section that nobody heeds."""
    config, told = converted(f"{MODEL}router_settings: {{num_retries: 1}}\nrouter_settings: {{timeout: 7}}\n")
    assert config.models["m"].deployments[0].timeouts.first_byte_seconds == 7
    assert config.routing.max_attempts == RoutingConfig().max_attempts
    assert told == ["config.yaml:3: router_settings: is given twice, first in line 2; the last counts"]


def test_no_secret_of_the_file_is_repeated() -> None:
    conversion = convert(FILE, "config.yaml")
    everything = conversion.text + str(conversion.losses)
    for secret in ("sk-plain-text", "sk-1234", "abc", "secretbar", "x:secret"):
        assert secret not in everything


def test_a_key_in_plain_text_gets_no_variable_of_another_key() -> None:
    """One's own server would have been sent OpenAI's key, which stands in the variable that was to hold its own."""
    mine = {"model": "openai/x", "api_base": "http://mine/v1", "api_key": "sk-mine"}
    others: list[dict[str, Any]] = [
        {"model": "openai/gpt-4o"},
        {"model": "openai/gpt-5", "api_key": "os.environ/OPENAI_API_KEY_2"},
        {"model": "groq/x", "api_key": "sk-groq"},
    ]
    entries = [{"model_name": params["model"], "litellm_params": params} for params in (mine, *others)]
    conversion = convert(json.dumps({"model_list": entries}), "config.yaml")
    keys = re.findall(r"base_url: (.*)\n    api_key: (.*)\n", conversion.text)
    assert keys == [
        ("http://mine/v1", "${OPENAI_API_KEY_3}"),
        ("https://api.openai.com/v1", "${OPENAI_API_KEY}"),
        ("https://api.openai.com/v1", "${OPENAI_API_KEY_2}"),
        ("https://api.groq.com/openai/v1", "${GROQ_API_KEY}"),
    ]
    assert "put it into the environment variable OPENAI_API_KEY_3" in conversion.losses[0].message


@pytest.mark.parametrize("key", ["", "EMPTY", "my-fake-key", "sk-dummy", "no-key-required", "not-used", "N/A"])
def test_what_is_written_where_no_key_is_needed_is_none(key: str) -> None:
    params = {"model": "openai/x", "api_base": "http://h/v1", "api_key": key}
    config, told = converted(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}))
    assert (config.providers["openai"].api_key, told) == (None, [])


def test_shuffling_goes_by_weight_else_rpm_else_tpm() -> None:
    def weights(*params: dict[str, Any]) -> list[float]:
        entries = [
            {"model_name": "m", "litellm_params": {"model": f"openai/{index}", **one}}
            for index, one in enumerate(params)
        ]
        config, _ = converted(json.dumps({"model_list": entries}))
        return [deployment.weight for deployment in config.models["m"].deployments]

    assert weights({"weight": 3, "rpm": 9}, {"rpm": 5}) == [3, 0]
    assert weights({"rpm": 9, "tpm": 1}, {"rpm": 5}) == [9, 5]
    assert weights({"tpm": 7}, {"rpm": 5, "tpm": 2}) == [7, 2]
    assert weights({}, {"rpm": 5}) == [1, 1]
    assert weights({"weight": 0}, {"weight": 0}) == [1, 1]


def test_deployments_without_an_order_come_last() -> None:
    """They came first: a reserve of somebody's was asked before what it is a reserve for."""
    first = {"model_name": "m", "litellm_params": {"model": "openai/first", "order": 1}}
    reserve = {"model_name": "m", "litellm_params": {"model": "openai/reserve"}}
    second = {"model_name": "m", "litellm_params": {"model": "openai/second"}, "model_info": {"order": "2"}}
    file = {"model_list": [reserve, second, first]}
    config, told = converted(json.dumps(file))
    assert [(one.model, one.order) for one in config.models["m"].deployments] == [
        ("reserve", 3),
        ("second", 2),
        ("first", 1),
    ]
    assert told == []
    (line,) = converted(json.dumps({**file, "router_settings": {"routing_strategy": "least-busy"}}))[1]
    assert line.endswith("router_settings.routing_strategy: models with an order go by that alone")


@pytest.mark.parametrize(
    ("params", "provider", "model", "url"),
    [
        ({"model": "gpt-4o"}, "openai", "gpt-4o", "https://api.openai.com/v1"),
        ({"model": "openai/gpt-4o"}, "openai", "gpt-4o", "https://api.openai.com/v1"),
        ({"model": "openai/x/y", "api_base": "http://h:1/v1/"}, "openai", "x/y", "http://h:1/v1"),
        ({"model": "mine", "api_base": "http://h/v1"}, "openai", "mine", "http://h/v1"),
        ({"model": "mine", "custom_llm_provider": "groq"}, "groq", "mine", "https://api.groq.com/openai/v1"),
        ({"model": "azure/d", "api_base": "https://r.openai.azure.com/openai/v1"}, "azure", "d", None),
        ({"model": "azure/d", "api_base": "https://openai-r.azure.com/openai/deployments/d"}, "azure", "d", None),
        (
            {
                "model": "azure/d",
                "api_base": "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-01-01",
            },
            "azure",
            "d",
            None,
        ),
        ({"model": "azure/o_series/d", "api_base": "https://r.openai.azure.com"}, "azure", "d", None),
        ({"model": "azure/gpt5_series/d", "api_base": "https://r.openai.azure.com"}, "azure", "d", None),
        ({"model": "xinference/a/b", "api_base": "http://h/v1"}, "openai_compatible", "a/b", "http://h/v1"),
        ({"model": "openrouter/openai/gpt-4o"}, "openrouter", "openai/gpt-4o", "https://openrouter.ai/api/v1"),
        ({"model": "gemini/x"}, "gemini", "x", "https://generativelanguage.googleapis.com/v1beta/openai"),
        (
            {"model": "gemini/x", "api_base": "https://generativelanguage.googleapis.com/"},
            "gemini",
            "x",
            "https://generativelanguage.googleapis.com/v1beta/openai",
        ),
        ({"model": "gemini/x", "api_base": "https://h/v1beta"}, "gemini", "x", "https://h/v1beta/openai"),
        ({"model": "anthropic/x", "api_base": "https://h/a/v1/messages"}, "anthropic", "x", "https://h/a"),
        ({"model": "anthropic/x", "api_base": "https://h/a/"}, "anthropic", "x", "https://h/a"),
        ({"model": "ollama_chat/llama3", "api_base": "http://h:11434"}, "ollama_chat", "llama3", "http://h:11434/v1"),
        ({"model": "fireworks_ai/llama"}, "fireworks_ai", "accounts/fireworks/models/llama", None),
        ({"model": "fireworks_ai/a/b"}, "fireworks_ai", "accounts/fireworks/models/a/b", None),
        ({"model": "fireworks_ai/accounts/a/models/b"}, "fireworks_ai", "accounts/a/models/b", None),
        ({"model": "fireworks_ai/a/b#accounts/c"}, "fireworks_ai", "a/b#accounts/c", None),
        ({"model": "mistral/x", "api_base": "https://api.mistral.ai"}, "mistral", "x", "https://api.mistral.ai/v1"),
        ({"model": "minimax/x", "api_base": "http://h/"}, "minimax", "x", "http://h/v1"),
        ({"model": "ft:gpt-4o:org::id"}, "openai", "ft:gpt-4o:org::id", "https://api.openai.com/v1"),
        ({"model": "dashscope/x"}, "dashscope", "x", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ({"model": "mistral/large"}, "mistral", "large", "https://api.mistral.ai/v1"),
        ({"model": "cloudflare/@cf/x"}, "cloudflare", "@cf/x", None),
        ({"model": "cloudflare/@cf/x", "api_base": "http://h/ai/run/"}, "cloudflare", "@cf/x", "http://h/ai/v1"),
        ({"model": "databricks/x"}, "databricks", "x", None),
        ({"model": "docker_model_runner/x", "api_base": "http://h/e"}, "docker_model_runner", "x", "http://h/e/v1"),
        ({"model": "minimax/x"}, "minimax", "x", "https://api.minimax.io/v1"),
        ({"model": "zai/x"}, "zai", "x", "https://api.z.ai/api/paas/v4"),
        (
            {"model": "x/y", "custom_llm_provider": "xinference", "api_base": "http://h/v1"},
            "openai_compatible",
            "x/y",
            "http://h/v1",
        ),
        (
            {"model": "m/x", "api_base": "https://api.together.ai/v1"},
            "together_ai",
            "m/x",
            "https://api.together.ai/v1",
        ),
        ({"model": "together_ai/meta/x"}, "together_ai", "meta/x", "https://api.together.xyz/v1"),
    ],
)
def test_prefixes_say_which_provider_it_is(params: dict[str, Any], provider: str, model: str, url: str | None) -> None:
    deployment = one(**params)
    assert (deployment.provider, deployment.model) == (provider, model)
    text = json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]})
    found = converted(text)[0].providers[provider].base_url
    if provider == "azure":
        assert re.fullmatch(r"https://(r\.openai|openai-r)\.azure\.com/openai/v1", found or "")
    elif url is not None:
        assert found == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: []", "no model of it could be carried over"),
        ("model_list: [{model_name: a, litellm_params: {model: vertex_ai/x}}]", "there is no provider here"),
        ("model_list: {a: b}", "is no list"),
        ("proxy_config: {model_list: []}", "model_list: is not there; a chart has it in proxy_config"),
        ("null", "model_list: is not there"),
        ("[]", "is no mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_file_of_which_nothing_is_left_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigErrors, match=said):
        convert(text, "config.yaml")


_ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        5,
        1.5,
        1e-6,
        10**15,
        "",
        "x",
        "5",
        "${no name}",
        "a\nb",
        "auto",
        "*",
        "none",
        "http://h/v1",
    ),
    *(
        "not a url",
        "gpt-4o",
        "no",
        "1e3",
        "0o17",
        [],
        ["a"],
        ["gpt-4o", "x"],
        {},
        {"a": "b"},
        [{"gpt-4o": ["x", "cl*"]}],
    ),
    *([{"*": "x"}], {"gpt-4": "x", "x": {"model": "gpt-4o"}}, [{}], {"X": "os.environ/Y"}),
]
_NAMES = st.sampled_from(["gpt-4o", "x", "claude*", "*", "a/*", "auto", "a*b*", "n o", "no", "1e3", "{x}", "modèle"])
_PREFIXED = st.sampled_from(
    ["openai/gpt-4o", "azure/x", "openai/*", "anthropic/*", "bedrock/a", "vertex_ai/x", "groq/1e3"]
)
_COUNTS = ["rpm", "tpm", "weight", "order", "timeout", "max_parallel_requests"]
_COSTS = ["input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"]
_LIMITS = ["num_retries", "timeout", "allowed_fails", "cooldown_time", "retry_after", "request_timeout"]
_NUMBERS = [*_COUNTS, *_COSTS, *_LIMITS, "stream_timeout", "max_input_tokens", "default_max_parallel_requests"]
_CONNECTION = ["api_base", "base_url", "api_key", "extra_headers", "headers", "organization", "custom_llm_provider"]
_PARAMS = [*_COUNTS, *_COSTS, *_CONNECTION, "stream_timeout", "tags", "temperature", "aws_region_name"]
_INFO = [
    "id",
    "mode",
    "access_groups",
    "max_input_tokens",
    "supports_vision",
    "supports_function_calling",
    "input_cost_per_token",
]
_FALLBACKS = ["fallbacks", "context_window_fallbacks", "default_fallbacks", "model_group_alias", "routing_groups"]
_ROUTER = [*_LIMITS, *_FALLBACKS, "routing_strategy", "redis_host", "default_max_parallel_requests", "master_key"]


def _some(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the keys with values that may be odd; the variable of a number holds a number."""
    values = {
        key: st.sampled_from([*_ODD, "os.environ/NUMBER" if key in _NUMBERS else "os.environ/URL"]) for key in keys
    }
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def _files(draw: st.DrawFn) -> dict[str, Any]:
    entries = [
        {
            "model_name": draw(_NAMES),
            "litellm_params": {"model": draw(_PREFIXED | _NAMES), **draw(_some(_PARAMS))},
            "model_info": draw(_some(_INFO)),
        }
        for _ in range(draw(st.integers(1, 4)))
    ]
    sections = {name: draw(_some(_ROUTER)) for name in ("router_settings", "litellm_settings", "general_settings")}
    return {"model_list": entries, **sections, "environment_variables": draw(_some(["A", "B"]))}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_files())
def test_whatever_comes_out_can_be_loaded(file: dict[str, Any]) -> None:
    try:
        conversion = convert(json.dumps(file, ensure_ascii=False), "config.yaml")
    except ConfigErrors as problem:
        assert "no model of it could be carried over" in str(problem)  # noqa: PT017
    else:
        assert loaded(conversion).models
