"""OpenRouter: OpenAI's dialect, with attribution headers, named generations, and usage in every answer."""

from __future__ import annotations

from aiohttp import ClientSession

from proxy.infrastructure.chat_completion.dialect import OPENAI, Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.openai_compatible import OpenAICompatibleChatCompletion
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.resilience import Resilience

_GENERATION_ID = "x-generation-id"
_ATTRIBUTION = ("HTTP-Referer", "X-Title", "X-OpenRouter-Title", "X-OpenRouter-Categories")

OPENROUTER = Dialect(
    usage_in_streams=UsageInStreams.ALWAYS,
    sent_on=(*_ATTRIBUTION, "X-OpenRouter-Metadata", *OPENAI.sent_on),
    handed_back=(_GENERATION_ID, *OPENAI.handed_back),
    generation_id_header=_GENERATION_ID,
)


class OpenRouterChatCompletion(OpenAICompatibleChatCompletion):
    """The connector for OpenRouter; `metadata` also holds the `cost` that it bills."""

    def __init__(
        self,
        settings: WireSettings,
        session: ClientSession,
        resilience: Resilience,
        *,
        service_id: str,
        ai_model_id: str,
    ) -> None:
        super().__init__(
            settings, session, resilience, service_id=service_id, ai_model_id=ai_model_id, dialect=OPENROUTER
        )
