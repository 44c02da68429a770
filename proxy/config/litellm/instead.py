"""What to do instead of settings of LiteLLM's that have no counterpart here, and which of them need none."""

from __future__ import annotations

NO_COUNTERPART = "has no counterpart here"
NOTHING_IS_DROPPED = (
    "nothing is left out of requests here: who does not know a parameter refuses it (anthropic: by 400)"
)
_AS_THEY_COME = "requests go to the model as they come: clients say it themselves"
_IN_ENVIRONMENT = "set {} in the environment"
_AWS = "the AWS client finds its credentials by itself: set {} in the environment"
_ENTRA = "Azure is asked with a key here: api_key"
_ATTEMPTS = "retries are limited for a request: routing.max_attempts"
_BUDGETS = "budgets are made by `llmgateway budgets create`"
_VALKEY = "set LLMGATEWAY_VALKEY_URL in the environment, through which gateways share limits and idempotency keys"
NO_CALLBACKS = "nothing is called here: metrics are at /metrics, spans go where OTEL_EXPORTER_OTLP_ENDPOINT says"
_NO_GUARDRAILS = "nobody looks into prompts and answers here"
_TOKENS = "set OIDC_ISSUER, OIDC_AUDIENCE and OIDC_ROLES in the environment"

CALLBACKS = ("callbacks", "success_callback", "failure_callback", "service_callback")
NO_LOSSES = ("prometheus", "prometheus_system")  # of callbacks: there are metrics anyway

# In litellm_params.
FOR_PARAMETERS = {
    "aws_region_name": _AWS.format("AWS_REGION"),
    "aws_access_key_id": _AWS.format("AWS_ACCESS_KEY_ID"),
    "aws_secret_access_key": _AWS.format("AWS_SECRET_ACCESS_KEY"),
    "aws_session_token": _AWS.format("AWS_SESSION_TOKEN"),
    "aws_profile_name": _AWS.format("AWS_PROFILE"),
    "api_version": "is not needed: this is Azure's surface without versions",
    "cooldown_time": "is the same for all deployments: routing.circuit_breaker.cooldown_seconds",
    "guardrails": _NO_GUARDRAILS,
    "ssl_verify": "certificates are always checked: set SSL_CERT_FILE in the environment for others than the usual",
    **dict.fromkeys(("max_retries", "num_retries"), _ATTEMPTS),
    **dict.fromkeys(("max_budget", "budget_duration"), f"{_BUDGETS} --model"),
    **dict.fromkeys(("additional_drop_params", "allowed_openai_params"), NOTHING_IS_DROPPED),
    **dict.fromkeys(
        ("azure_ad_token", "tenant_id", "client_id", "client_secret", "azure_username", "azure_password"), _ENTRA
    ),
    **dict.fromkeys(
        (
            *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop", "n", "user"),
            *("presence_penalty", "frequency_penalty", "logit_bias", "response_format", "tools", "tool_choice"),
            *("reasoning_effort", "thinking", "service_tier", "stream", "stream_options", "modalities", "extra_body"),
            *("num_ctx", "keep_alive", "web_search_options", "cache_control_injection_points"),
        ),
        _AS_THEY_COME,
    ),
}
# In router_settings, litellm_settings, general_settings and beside them.
FOR_SETTINGS = {
    "master_key": _IN_ENVIRONMENT.format("LLMGATEWAY_MASTER_KEY"),
    "database_url": "set DATABASE_URL in the environment; the ledger has tables of its own",
    "store_model_in_db": "models that were added in the database are not in this file: write them into it",
    "include": "other files are not read: write what they hold into this one first",
    "store_prompts_in_spend_logs": _IN_ENVIRONMENT.format("LLMGATEWAY_STORE_PAYLOADS=all"),
    "maximum_spend_logs_retention_period": _IN_ENVIRONMENT.format("LEDGER_RETENTION_DAYS"),
    "max_request_size_mb": _IN_ENVIRONMENT.format("MAX_BODY_BYTES"),
    "json_logs": _IN_ENVIRONMENT.format("LLMGATEWAY_LOG_FORMAT=json"),
    "port": _IN_ENVIRONMENT.format("LLMGATEWAY_PORT"),
    "num_workers": _IN_ENVIRONMENT.format("LLMGATEWAY_WORKERS"),
    "enable_tag_filtering": "requests name tags in the header x-gateway-tags here, a deployment needs all of them, "
    "and requests without tags may come to any, not only to those of the tag `default`",
    "retry_policy": "retries do not depend on the kind of error here",
    "allowed_fails_policy": "the circuit breaker does not depend on the kind of error here",
    "modify_params": _AS_THEY_COME,
    "pass_through_endpoints": "other paths are not passed through",
    **dict.fromkeys(
        ("alerting", "alert_to_webhook_url"), "set BUDGET_WEBHOOK_URL for budgets; else docs/monitoring.md"
    ),
    **dict.fromkeys(("cache", "cache_params", "cache_responses"), "answers are not cached"),
    **dict.fromkeys(("redis_host", "redis_port", "redis_password", "redis_url"), _VALKEY),
    **dict.fromkeys(("guardrails", "policies", "prompt_injection_params"), _NO_GUARDRAILS),
    **dict.fromkeys(("enable_jwt_auth", "litellm_jwtauth"), _TOKENS),
    **dict.fromkeys(
        ("max_budget", "budget_duration", "max_internal_user_budget", "internal_user_budget_duration"), _BUDGETS
    ),
    **dict.fromkeys(("max_end_user_budget", "default_end_user_params"), f"{_BUDGETS} --end-user"),
    **dict.fromkeys(
        ("max_parallel_requests", "global_max_parallel_requests"),
        "limits are made by `llmgateway limits set`; MAX_IN_FLIGHT holds for a process",
    ),
}
# True of this gateway anyway, or without effect in it.
NEEDLESS_PARAMETERS = ("use_in_pass_through", "merge_reasoning_content_in_choices", "base_model")
NEEDLESS_SETTINGS = (
    "enable_pre_call_checks",
    "set_verbose",
    "ignore_invalid_deployments",
    "telemetry",
    "turn_off_message_logging",
    "redact_user_api_key_info",
)
