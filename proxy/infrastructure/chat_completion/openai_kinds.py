"""OpenAI-compatible servers that differ from OpenAI in more than their address."""

from __future__ import annotations

from functools import partial

from proxy.infrastructure.chat_completion.dialect import OPENAI, Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.openai_compatible import OpenAICompatibleChatCompletion

# Azure's v1 surface. A Microsoft Entra token is a header of the operator's (Authorization), without a key.
azure = partial(
    OpenAICompatibleChatCompletion,
    dialect=Dialect(api_key_header="api-key", handed_back=(*OPENAI.handed_back, "apim-request-id")),
)

# Mistral's own /v1: answers 422 to `stream_options`, and tells the usage of every stream.
mistral = partial(
    OpenAICompatibleChatCompletion,
    dialect=Dialect(
        usage_in_streams=UsageInStreams.ALWAYS,
        handed_back=(
            *OPENAI.handed_back,
            "x-ratelimit-limit-req-minute",
            "x-ratelimit-remaining-req-minute",
            "x-ratelimit-limit-tokens-minute",
            "x-ratelimit-remaining-tokens-minute",
            "x-ratelimit-tokens-query-cost",
        ),
    ),
)
