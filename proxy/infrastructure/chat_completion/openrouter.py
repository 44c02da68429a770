"""OpenRouter: OpenAI's dialect, with attribution headers, named generations, and usage in every answer."""

from __future__ import annotations

from typing import ClassVar

from proxy.infrastructure.chat_completion.dialect import OPENAI, Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.openai_compatible import OpenAICompatibleChatCompletion

_GENERATION_ID = "x-generation-id"


class OpenRouterChatCompletion(OpenAICompatibleChatCompletion):
    """The connector for OpenRouter; `metadata` also holds the `cost` that it bills."""

    DIALECT: ClassVar[Dialect] = Dialect(
        usage_in_streams=UsageInStreams.ALWAYS,
        sent_on=(
            "HTTP-Referer",
            "X-Title",
            "X-OpenRouter-Title",
            "X-OpenRouter-Categories",
            "X-OpenRouter-Metadata",
            *OPENAI.sent_on,
        ),
        handed_back=(_GENERATION_ID, *OPENAI.handed_back),
        generation_id_header=_GENERATION_ID,
    )
