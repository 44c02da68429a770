"""Names of attributes and of providers: those of the conventions of 2026, and ours where they have none.

The conventions for generative AI are still in development and have left the package that had them as constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ERROR_TYPE: Final = "error.type"
HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS = "http.request.method", "http.route", "http.response.status_code"
HTTP_RESEND_COUNT: Final = "http.request.resend_count"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"

OPERATION, CHAT = "gen_ai.operation.name", "chat"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL, REQUEST_STREAM = "gen_ai.request.model", "gen_ai.request.stream"
RESPONSE_ID, RESPONSE_MODEL = "gen_ai.response.id", "gen_ai.response.model"
RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

REQUEST_ID: Final = "llmgateway.request_id"
OUTCOME: Final = "llmgateway.outcome"
ATTEMPTS: Final = "llmgateway.attempts"
COST_USD: Final = "llmgateway.cost_usd"
DEPLOYMENT, CONFIGURED_PROVIDER = "llmgateway.deployment", "llmgateway.provider"

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
OTHER_METHOD: Final = "_OTHER"

_OF_KINDS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral-openai": "mistral_ai",
    "openrouter": "openrouter",
}
_OF_HOSTS: Final[Mapping[str, str]] = {
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
_ALL_OTHERS: Final = "openai"  # what the convention says of servers that speak its dialect


def provider_name(kind: str, host: str | None) -> str:
    """What the convention calls a provider of that kind at that host."""
    return _OF_KINDS.get(kind) or _OF_HOSTS.get(host or "", _ALL_OTHERS)
