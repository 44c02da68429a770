"""The gateway's settings, read from the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from proxy.config.environment import SUFFIX, SecretFileError, secret_file, variable
from proxy.config.fields import fits_a_header
from proxy.config.urls import (
    SQLITE_PREFIX,
    OptionalDatabaseUrl,
    OptionalIssuerUrl,
    OptionalValkeyUrl,
    OptionalWebhookUrl,
    Origins,
    UpstreamUrl,
    stripped,
)
from proxy.domain.access.permissions import Role

OPENROUTER_URL = "https://openrouter.ai/api/v1/"
_FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
_ROLES = r"^\s*[^=,\s]+\s*=\s*[a-z_]+\s*(,\s*[^=,\s]+\s*=\s*[a-z_]+\s*)*$"
_IN_WORDS = {
    _FUNCTION: "must be `module:function`",
    _ROLES: "must be pairs like 'platform=admin,*=member'",
}
_MAY_HOLD_SECRETS = ("_API_KEY", "_MASTER_KEY", "_URL")
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _in_capitals(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _sendable(key: SecretStr | None) -> SecretStr | None:
    if key is not None and not fits_a_header(key.get_secret_value()):
        raise ValueError("has characters in it that no HTTP header can carry")
    return key


def _in_full(path: str | None) -> str | None:
    if path is None or not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError("begins with ~, but that home directory is not known") from None


_OptionalText = Annotated[str | None, BeforeValidator(_blank_is_none)]
_OptionalKey = Annotated[SecretStr | None, BeforeValidator(stripped), AfterValidator(_sendable)]
_OptionalPort = Annotated[Annotated[int, Field(ge=1, le=65535)] | None, BeforeValidator(_blank_is_none)]


class Settings(BaseSettings):
    """Everything that can be set; each field is the environment variable of the same name, in capitals.

    Those that may hold secrets may be in a file, whose path is in the variable with `_FILE` behind its name.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", validate_default=True)

    openrouter_base_url: UpstreamUrl = Field(
        OPENROUTER_URL, description="the upstream's base URL (any OpenAI-compatible one)"
    )
    openrouter_api_key: _OptionalKey = Field(
        None, description="the upstream's key; without it the built-in demo upstream serves"
    )
    openrouter_timeout_seconds: _Seconds = Field(30.0, description="until the upstream's first byte, per attempt")
    answer_timeout_seconds: _Seconds = Field(
        600.0,
        description="the same of an answer that is not streamed; default: OPENROUTER_TIMEOUT_SECONDS if that is set",
    )
    connect_timeout_seconds: _Seconds = Field(5.0, description="to connect to the upstream")
    stream_idle_timeout_seconds: _Seconds = Field(60.0, description="between two reads from the upstream")
    stream_hold_seconds: _Seconds = Field(10.0, description="how long comments before a stream's first token wait")
    stream_total_timeout_seconds: _Seconds = Field(3600.0, description="for a whole stream")
    request_timeout_seconds: _Seconds = Field(
        600.0, description="for all attempts, waits and fallbacks of a request, up to the answer (a stream's beginning)"
    )
    retry_max_retries: int = Field(3, ge=0, le=10, description="retries after the first attempt")
    retry_base_seconds: float = Field(1.0, ge=0, le=60, description="first wait; doubles with each retry")
    retry_after_cap_seconds: float = Field(30.0, ge=0, description="a longer Retry-After is handed to the client")
    circuit_breaker_failure_threshold: int = Field(5, ge=1, description="failed requests in a row that open it")
    circuit_breaker_cooldown_seconds: _Seconds = Field(30.0, description="until a probe is let through")
    database_url: OptionalDatabaseUrl = Field(
        None, description="`postgresql://…` or `sqlite:///…`; default: data directory"
    )
    ledger_spool_max_bytes: int = Field(
        1_073_741_824, ge=16_777_216, description="disk that rows may take while they wait for the database"
    )
    ledger_fsync: Literal["never", "interval", "always"] = Field(
        "interval", description="when rows are forced to the disk: what a power cut may lose"
    )
    ledger_retention_days: int = Field(
        0, ge=0, le=36_500, description="days that rows are kept, 0 for ever; reports keep their sums"
    )
    llmgateway_store_payloads: Literal["off", "errors", "all"] = Field(
        "off", description="whose request and response bodies are stored, in a table of their own"
    )
    payload_max_bytes: int = Field(65_536, ge=1, le=67_108_864, description="stored of each body; the rest is cut off")
    payload_retention_days: int = Field(7, ge=0, le=36_500, description="days that bodies are kept, 0 for ever")
    payload_redaction: _OptionalText = Field(
        None, pattern=_FUNCTION, description="`module:function`, bytes to bytes: what may be stored of a body"
    )
    llmgateway_config: Annotated[_OptionalText, AfterValidator(_in_full)] = Field(
        None, description="the configuration file; default: gateway.yaml in the working directory, if there is one"
    )
    llmgateway_traces: Literal["off", "notable", "all"] = Field(
        "notable", description="whose traces are kept: `notable` are choices, second calls and failures"
    )
    trace_retention_days: int = Field(
        7, ge=0, le=36_500, description="days that traces are kept, 0 as long as the ledger's rows"
    )
    llmgateway_host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    llmgateway_port: int = Field(4000, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    llmgateway_admin_port: _OptionalPort = Field(
        None, description="a port of its own for the admin API, which then is not served on the other one"
    )
    llmgateway_metrics_port: _OptionalPort = Field(
        None, description="a port of its own for /metrics and /health/live, without a key"
    )
    cors_allowed_origins: Annotated[Origins, NoDecode] = Field(
        (), description="whose pages may call models from browsers, like https://chat.example.com; *: all"
    )
    llmgateway_workers: int = Field(1, ge=1, le=256, description="processes that serve the port together")
    llmgateway_data_dir: Annotated[str, AfterValidator(_in_full)] = Field(
        ".llmgateway", min_length=1, description="the ledger's spool and the SQLite database"
    )
    llmgateway_master_key: _OptionalKey = Field(
        None, description="the bearer token that administers the gateway; with it all requests need a key"
    )
    llmgateway_master_key_calls_models: bool = Field(
        default=False, description="whether the master key may call models as well"
    )
    llmgateway_require_keys: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether requests need a key; auto: once there is a master key, an issuer or a virtual key",
    )
    llmgateway_keys_stale_seconds: float = Field(
        3600.0,
        ge=1,
        allow_inf_nan=False,
        description="how long keys that are known serve on while the database is away",
    )
    oidc_issuer: OptionalIssuerUrl = Field(
        None, description="whose JWTs are bearer tokens here, as in their `iss`; default: nobody's"
    )
    oidc_audience: _OptionalText = Field(None, description="what a token's `aud` must name")
    oidc_jwks_url: OptionalIssuerUrl = Field(
        None, description="the issuer's keys; default: as its discovery document says"
    )
    oidc_team_claim: _OptionalText = Field("team", description="the claim with the name of the team; empty: no teams")
    oidc_role_claim: str = Field("role", min_length=1, description="the claim with roles; dots lead into objects")
    oidc_roles: _OptionalText = Field(
        None,
        pattern=_ROLES,
        description="`value=role` pairs, the first that fits counts, `*` fits all; roles: " + ", ".join(Role),
    )
    oidc_calls_models: bool = Field(default=True, description="whether tokens of members may call models")
    oidc_clock_skew_seconds: float = Field(
        60.0, ge=0, le=600, description="by how much the issuer's clock may differ from ours"
    )
    llmgateway_log_format: Literal["json", "pretty"] | None = Field(
        None, description="`json` or `pretty`; default: pretty on a terminal"
    )
    llmgateway_log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_in_capitals)] = (
        Field("INFO", description="least level logged")
    )
    llmgateway_otel: Literal["auto", "on", "off"] = Field(
        "auto", description="whether spans are exported; auto: if `OTEL_EXPORTER_OTLP_ENDPOINT` says where to"
    )
    max_body_bytes: int = Field(33_554_432, ge=1024, description="largest request body")
    max_answer_bytes: int = Field(
        134_217_728,
        ge=1024,
        description="largest answer of an upstream; of streams, only Anthropic's and Google's",
    )
    head_timeout_seconds: _Seconds = Field(
        30.0, description="for the head of a request: from the connection's beginning, later from the head's"
    )
    keepalive_timeout_seconds: _Seconds = Field(
        75.0, description="until a connection without a request is closed; longer than a balancer keeps one idle"
    )
    body_timeout_seconds: _Seconds = Field(30.0, description="how long a request's body may make too little progress")
    body_min_bytes_per_second: float = Field(1000.0, gt=0, allow_inf_nan=False, description="what is too little")
    max_in_flight: int = Field(
        10_000, ge=1, description="requests that are served at a time; fewer if there are not two descriptors for each"
    )
    max_in_flight_per_key: int = Field(5_000, ge=1, description="of them those of one key")
    max_queued: int = Field(500, ge=1, description="requests that wait to begin; more are refused")
    overload_lag_seconds: float = Field(
        0.05,
        ge=0,
        le=10,
        description="how long a request may wait to begin, but for bursts; 0: as long as it takes",
    )
    write_stall_timeout_seconds: _Seconds = Field(60.0, description="until a client that reads nothing is cut off")
    shutdown_grace_seconds: _Seconds = Field(30.0, description="for running requests to finish after SIGTERM")
    shutdown_delay_seconds: float = Field(
        0.0,
        ge=0,
        le=600,
        description="after SIGTERM, for balancers to see that /health/accepting says 503; requests are served on",
    )
    budget_default_output_tokens: int = Field(
        8192, ge=1, description="what budgets and token limits count on for an answer that the request does not limit"
    )
    budget_unpriced_hold_usd: Decimal = Field(
        Decimal("0.05"), ge=0, le=1000, description="what budgets set aside for a model whose price is not known"
    )
    budget_webhook_url: OptionalWebhookUrl = Field(
        None, description="`http(s)://…` that is told when a budget has passed its warning share or its amount"
    )
    llmgateway_valkey_url: OptionalValkeyUrl = Field(
        None,
        description="`valkey(s)://` or `redis(s)://`: rate limits and idempotency keys are shared through it",
    )
    valkey_deadline_seconds: _Seconds = Field(0.05, description="for Valkey's answer; then limits and keys are local")
    limit_queue_length: int = Field(
        100, ge=0, le=100_000, description="requests that wait for a place of a limit on concurrent requests"
    )
    limit_queue_seconds: _Seconds = Field(5.0, description="that a request waits for such a place")
    prices_sync_seconds: float = Field(
        86_400.0,
        ge=0,
        allow_inf_nan=False,
        description="between two looks at the upstream's prices; 0: none but by `llmgateway prices sync`",
    )
    reconcile_seconds: float = Field(
        3600.0,
        ge=0,
        allow_inf_nan=False,
        description="between two looks at what the upstream billed; 0: none but by `llmgateway reconcile`",
    )
    models_cache_seconds: _Seconds = Field(300.0, description="how long the upstream's model list is kept")
    auto_default_model: str = Field("z-ai/glm-4.6", min_length=1, description="what `auto` means for short prompts")
    auto_large_context_model: str = Field(
        "moonshotai/Kimi-K2-Instruct-0905", min_length=1, description="what `auto` means for long prompts"
    )
    auto_balanced_model: str = Field(
        "deepseek-ai/DeepSeek-V3.1-Terminus", min_length=1, description="the third model of `auto`'s fallback chain"
    )
    auto_large_context_threshold_tokens: int = Field(10_000, ge=0, description="longest short prompt, estimated tokens")
    auto_max_prompt_tokens: int = Field(200_000, ge=1, description="longest prompt that `auto` takes")

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        environment = {name.upper(): value for name, value in os.environ.items()}
        problems = []
        for field in filter(_may_hold_a_secret, cls.model_fields):
            name = field.upper()
            if secret_file(name, environment) and (name in environment or field not in given):
                try:
                    given[field] = variable(name, environment)
                except SecretFileError as problem:
                    problems.append(str(problem))
        if problems:
            raise ValueError("\n  ".join(problems))
        return given

    @model_validator(mode="after")
    def _only_loopback_is_open(self) -> Self:
        asks_for_keys = {"always": True, "never": False}.get(
            self.llmgateway_require_keys, self.llmgateway_master_key is not None or self.oidc_issuer is not None
        )
        if not asks_for_keys and not _is_loopback(self.llmgateway_host):
            raise ValueError(
                f"refusing to listen on {self.llmgateway_host} without a key: set LLMGATEWAY_MASTER_KEY or OIDC_ISSUER "
                "(and not LLMGATEWAY_REQUIRE_KEYS=never), or listen on 127.0.0.1 (LLMGATEWAY_HOST)"
            )
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        names: dict[int, str] = {}
        for name in ("llmgateway_port", "llmgateway_admin_port", "llmgateway_metrics_port"):
            port = getattr(self, name)
            if port and port in names:
                raise ValueError(f"{names[port]} and {name.upper()} are both {port}: each needs a port of its own")
            names[port] = name.upper()
        return self

    @model_validator(mode="after")
    def _tokens_have_an_audience_and_roles(self) -> Self:
        if self.oidc_issuer is not None:
            if self.oidc_audience is None:
                raise ValueError("OIDC_ISSUER needs OIDC_AUDIENCE: tokens for other services must not be good here")
            if self.oidc_roles is None:
                raise ValueError("OIDC_ISSUER needs OIDC_ROLES, for example 'platform=admin,*=member'")
            self.oidc_role_mapping()
        return self

    def oidc_role_mapping(self) -> dict[str, Role]:
        """OIDC_ROLES in its order."""
        pairs = (pair.split("=") for pair in (self.oidc_roles or "").split(",") if pair.strip())
        mapping: dict[str, Role] = {}
        for value, name in pairs:
            if name.strip() not in set(Role):
                raise ValueError(f"OIDC_ROLES: '{name.strip()}' is no role; roles are {', '.join(Role)}")
            mapping[value.strip()] = Role(name.strip())
        return mapping

    @property
    def first_byte_of_answer_seconds(self) -> float:
        """Of one that is not streamed. A limit that is set for first bytes is for these, too, if nothing else is."""
        is_set = self.model_fields_set
        if "openrouter_timeout_seconds" in is_set and "answer_timeout_seconds" not in is_set:
            return self.openrouter_timeout_seconds
        return self.answer_timeout_seconds

    @property
    def sqlite_file(self) -> str | None:
        """That of DATABASE_URL, as it stands there."""
        url = self.database_url or ""
        return url.removeprefix(SQLITE_PREFIX) if url.startswith(SQLITE_PREFIX) else None

    @property
    def uses_demo_upstream(self) -> bool:
        """Without a key OpenRouter would refuse every call; another upstream may need none."""
        return self.openrouter_api_key is None and self.openrouter_base_url.rstrip("/") == OPENROUTER_URL.rstrip("/")


def variables_read() -> Iterator[str]:
    """The names of all variables that settings are read from, in capitals."""
    for field in Settings.model_fields:
        yield field.upper()
        if _may_hold_a_secret(field):
            yield field.upper() + SUFFIX


def _may_hold_a_secret(field: str) -> bool:
    return field.upper().endswith(_MAY_HOLD_SECRETS)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def explain(error: ValidationError) -> list[str]:
    """One line for each wrong setting: its variable, what is wrong, never the value of a secret."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]).upper()
        pattern = problem.get("ctx", {}).get("pattern", "")
        message = _IN_WORDS.get(pattern, problem["msg"].removeprefix("Value error, "))
        given = problem["input"]
        shown = (
            f" (given: {given!r})"
            if name and isinstance(given, str | int | float) and not _may_hold_a_secret(name)
            else ""
        )
        lines.append(f"{name}: {message}{shown}" if name else message)
    return lines
