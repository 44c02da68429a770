"""What a configuration file holds. Once loaded nothing is left open: what the file leaves out has been filled in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from proxy.config.fields import (
    AliasKey,
    ApiKey,
    AttemptCount,
    BaseUrl,
    Choice,
    Count,
    GroupKey,
    Headers,
    Label,
    LongSeconds,
    NotEmpty,
    OrWord,
    Percent,
    PositiveCount,
    Price,
    ProviderKey,
    ProviderName,
    PublicModelKey,
    PublicModelName,
    PublicModelPattern,
    RetrySeconds,
    Seconds,
    ServiceTier,
    Tags,
    UpstreamModel,
    Weight,
    YesNo,
    each_once,
)
from proxy.domain.price_tiers import MOST_TIERS

ProviderKind = Literal["openrouter", "openai", "azure", "mistral-openai", "anthropic", "google"]
StrategyName = Literal["weighted", "priority", "least-busy", "latency", "cost", "usage"]
CapabilityName = Literal["vision", "audio", "files", "tools", "json_schema"]
UsageInStreams = Literal["always", "on_request", "never"]

BASE_URLS: dict[str, str] = {
    "openrouter": "https://openrouter.ai/api/v1",
    "anthropic": "https://api.anthropic.com",
    "mistral-openai": "https://api.mistral.ai/v1",
    "google": "https://generativelanguage.googleapis.com",
}

P95 = "p95"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeoutsConfig(_Section):
    """How long the upstream may take, in seconds. What a deployment does not set, its provider does."""

    connect_seconds: Seconds = Field(default=5.0, description="to connect; default: CONNECT_TIMEOUT_SECONDS")
    first_byte_seconds: Seconds = Field(
        default=30.0, description="until the first byte, for each attempt; default: OPENROUTER_TIMEOUT_SECONDS"
    )
    answer_seconds: Seconds = Field(
        default=600.0,
        description="the same of an answer that is not streamed, of which most providers send nothing before all of "
        "it is there; default: ANSWER_TIMEOUT_SECONDS, else first_byte_seconds where that is given",
    )
    idle_seconds: Seconds = Field(default=60.0, description="between two reads; default: STREAM_IDLE_TIMEOUT_SECONDS")
    stream_total_seconds: Seconds = Field(
        default=3600.0, description="for a whole stream; default: STREAM_TOTAL_TIMEOUT_SECONDS"
    )


class RetryBudgetConfig(_Section):
    """How many of a provider's requests may be retries, so that an outage is not made worse."""

    percent: Percent = Field(default=20.0, description="of the active requests")
    min_requests: Count = Field(default=3, description="retries that are always allowed")


_HAS_URL: JsonValue = {"required": ["base_url"], "properties": {"base_url": {"type": "string"}}}
_HAS_OWN_URL: JsonValue = {"required": ["kind"], "properties": {"kind": {"enum": [*BASE_URLS]}}}


class ProviderConfig(_Section):
    """Where models are served, and how to call it."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_HAS_URL, _HAS_OWN_URL]})

    kind: Annotated[ProviderKind, Choice] = Field(
        default="openai",
        description="what it speaks: `openai` is any OpenAI-compatible server, `azure` (its v1 surface) and "
        "`mistral-openai` are those of Azure and Mistral; `anthropic` and `google` are dialects of their own "
        "(pip install 'llmgateway[anthropic,google]')",
    )
    base_url: BaseUrl | None = Field(
        default=None,
        description="what paths like /chat/completions are added to; required for `openai` and `azure`",
    )
    api_key: ApiKey | None = Field(
        default=None,
        description="the environment variable that holds the key, like ${OPENROUTER_API_KEY} (which may be a file's: "
        "OPENROUTER_API_KEY_FILE); never the key",
    )
    headers: Headers = Field(
        default_factory=dict, description="sent with every call; secrets only by reference, like ${NAME}"
    )
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig, description="in seconds")
    max_concurrency: PositiveCount | None = Field(
        default=None, description="calls that each of its deployments has at a time; null: unlimited"
    )
    max_queue: Count = Field(default=100, description="requests that may wait for a place, for each deployment")
    queue_timeout_seconds: Seconds = Field(default=10.0, description="how long a request may wait for a place")
    done_marker: YesNo = Field(
        default=True,
        description="whether its streams end with [DONE]; one that does and comes without it was cut",
    )
    usage_in_streams: Annotated[UsageInStreams, Choice] = Field(
        default="always",
        description="whether streams tell their usage; `on_request`: when asked by stream_options.include_usage. "
        "default: on_request for `openai` and `azure`, else always",
    )
    retry_budget: RetryBudgetConfig = Field(
        default_factory=RetryBudgetConfig, description="limits retries while the provider fails"
    )


class _PricesConfig(_Section):
    """Prices in USD, each of which may be left out."""

    input_usd_per_1m_tokens: Price | None = Field(default=None, description="for a million input tokens")
    output_usd_per_1m_tokens: Price | None = Field(default=None, description="for a million output tokens")
    cached_input_usd_per_1m_tokens: Price | None = Field(
        default=None, description="input tokens read from a prompt cache"
    )
    cache_write_usd_per_1m_tokens: Price | None = Field(
        default=None, description="input tokens written to a prompt cache"
    )
    audio_input_usd_per_1m_tokens: Price | None = Field(default=None, description="input tokens of audio")
    image_input_usd_per_1m_tokens: Price | None = Field(default=None, description="input tokens of images")
    cache_write_1h_usd_per_1m_tokens: Price | None = Field(
        default=None, description="input tokens written to a prompt cache for an hour"
    )
    reasoning_usd_per_1m_tokens: Price | None = Field(default=None, description="output tokens of reasoning")
    audio_output_usd_per_1m_tokens: Price | None = Field(default=None, description="output tokens of audio")
    image_output_usd_per_1m_tokens: Price | None = Field(default=None, description="output tokens of images")
    request_fee_usd: Price | None = Field(default=None, description="for each request, whatever its tokens")


class PriceTierConfig(_PricesConfig):
    """Prices of some requests: long ones, those of a service tier, or both. Others are those of the deployment."""

    above_input_tokens: PositiveCount | None = Field(
        default=None, description="for requests with more input tokens than that, those from a cache included"
    )
    service_tier: ServiceTier | None = Field(
        default=None, description="for requests that the provider says it served in that tier, like flex or priority"
    )


class PricesConfig(_PricesConfig):
    """Prices in USD. What has no price of its own costs what other input or output tokens do."""

    input_usd_per_1m_tokens: Price = Field(description="for a million input tokens")
    output_usd_per_1m_tokens: Price = Field(description="for a million output tokens")
    tiers: tuple[PriceTierConfig, ...] = Field(
        default=(),
        max_length=MOST_TIERS,
        description="other prices for long requests, and for those of a service tier",
    )


class DeploymentConfig(_Section):
    """One way to serve a model: a provider, and that provider's name for it."""

    provider: ProviderName = Field(description="one of `providers`")
    model: UpstreamModel = Field(
        default="",
        description="the provider's name for the model; `*` is what the public name's `*` matched. "
        "default: the public name",
    )
    name: Label = Field(
        default="",
        description="what traces, health and metrics call it, unique in its model; default: <provider>/<model>",
    )
    weight: Weight = Field(default=1.0, description="share of the requests; 0: only when no other deployment is left")
    order: Count = Field(default=0, description="for the strategy `priority`: lower first")
    rpm: PositiveCount | None = Field(default=None, description="the provider's limit of requests per minute")
    tpm: PositiveCount | None = Field(default=None, description="the provider's limit of tokens per minute")
    prices: PricesConfig | None = Field(default=None, description="what it costs; before prices known from elsewhere")
    context_window_tokens: PositiveCount | None = Field(default=None, description="longest prompt and answer together")
    capabilities: Annotated[tuple[Annotated[CapabilityName, Choice], ...], AfterValidator(each_once)] | None = Field(
        default=None,
        description="requests that need others do not come here; absent: not known, taken to be all",
        json_schema_extra={"uniqueItems": True},
    )
    tags: Tags = Field(default=(), description="requests may ask for deployments with a tag")
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig, description="before those of the provider")
    max_concurrency: PositiveCount | None = Field(
        default=None, description="calls at a time; null: unlimited; default: the provider's"
    )


class HedgeConfig(_Section):
    """When a second deployment is asked as well, because the first is slow. Both are paid for."""

    after_seconds: Seconds | None = Field(
        description="without a first token for so long; null: the 95th percentile of the model's times to first token"
    )

    @model_validator(mode="before")
    @classmethod
    def _p95(cls, value: Any) -> Any:
        if isinstance(value, str) and value != P95:
            raise PydanticCustomError("hedge", "must be p95, or a mapping with after_seconds")
        return {"after_seconds": None} if value == P95 else value


class ModelConfig(_Section):
    """A public model name's deployments, and how requests are shared out among them."""

    strategy: Annotated[StrategyName, Choice] = Field(
        default="weighted", description="which deployment comes first; default: routing.strategy"
    )
    sticky: YesNo = Field(
        default=False,
        description="sessions stay on one deployment, whose prompt cache knows them",
    )
    hedge: Annotated[HedgeConfig, OrWord(P95)] | None = Field(
        default=None, description="`p95`, or {after_seconds: …}; null: off"
    )
    deployments: Annotated[tuple[DeploymentConfig, ...], NotEmpty()] = Field(
        description="one or more ways to serve it",
        json_schema_extra={"contains": {"properties": {"weight": {"not": {"const": 0}}}}},
    )


_Chains = dict[PublicModelKey, Annotated[tuple[PublicModelName, ...], NotEmpty(), AfterValidator(each_once)]]


class FallbacksConfig(_Section):
    """The models that stand behind a model, in order, by kind of failure."""

    general: _Chains = Field(default_factory=dict, description="when its deployments are down or refuse for now")
    context_window: _Chains = Field(default_factory=dict, description="when the prompt is too long for it")
    content_policy: _Chains = Field(default_factory=dict, description="when it refuses what the prompt is about")


class CircuitBreakerConfig(_Section):
    """When a deployment is left alone for a while."""

    failure_threshold: PositiveCount = Field(
        default=5, description="failed requests in a row; default: CIRCUIT_BREAKER_FAILURE_THRESHOLD"
    )
    cooldown_seconds: Seconds = Field(
        default=30.0, description="until a probe is let through; default: CIRCUIT_BREAKER_COOLDOWN_SECONDS"
    )


class RoutingConfig(_Section):
    """What holds for all models."""

    strategy: Annotated[StrategyName, Choice] = Field(default="weighted", description="for models that set none")
    max_attempts: AttemptCount = Field(
        default=4,
        description="upstream calls for one request, over all deployments; default: RETRY_MAX_RETRIES and one",
    )
    retry_base_seconds: RetrySeconds = Field(
        default=1.0, description="first wait before a retry, it doubles; default: RETRY_BASE_SECONDS"
    )
    retry_after_cap_seconds: LongSeconds = Field(
        default=30.0, description="a longer Retry-After is handed to the client; default: RETRY_AFTER_CAP_SECONDS"
    )
    request_timeout_seconds: Seconds = Field(
        default=600.0,
        description="for all attempts, waits and fallbacks, up to the answer; default: REQUEST_TIMEOUT_SECONDS",
    )
    circuit_breaker: CircuitBreakerConfig = Field(
        default_factory=CircuitBreakerConfig, description="one for each deployment"
    )


class GatewayConfig(_Section):
    """The configuration of LLM Gateway. Keys that begin with `x-` are free, for YAML anchors."""

    model_config = ConfigDict(json_schema_extra={"patternProperties": {"^x-": {}}})

    providers: Annotated[dict[ProviderKey, ProviderConfig], NotEmpty()] = Field(description="by name")
    models: Annotated[dict[PublicModelKey, ModelConfig], NotEmpty()] = Field(
        description="by public name; `openrouter/*` or `*` stand for all names that fit"
    )
    aliases: dict[AliasKey, PublicModelName] = Field(default_factory=dict, description="other names for models")
    model_groups: dict[GroupKey, Annotated[tuple[PublicModelPattern, ...], NotEmpty(), AfterValidator(each_once)]] = (
        Field(
            default_factory=dict, description="models, also with a `*`, that keys are allowed together: `group:<name>`"
        )
    )
    fallbacks: FallbacksConfig = Field(default_factory=FallbacksConfig, description="models behind models")
    routing: RoutingConfig = Field(default_factory=RoutingConfig, description="what holds for all models")
