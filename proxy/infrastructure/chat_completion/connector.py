"""What all of the gateway's Semantic Kernel connectors have in common: two entrances, and what their contents say."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, ClassVar

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent

from proxy.application.raw_call import RawSettings, bare
from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import UpstreamError
from proxy.infrastructure.chat_completion.contents import chunk_contents, history_messages, message_contents
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.http import detail_for_the_log

_logger = logging.getLogger(__name__)
_DEFAULT_TIMEOUT_SECONDS = 600.0
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)  # what JSON of another shape leads to
_OURS = ("model", "messages", "stream")  # each has its own way into a payload
# Fields of contents that carry bytes. Validating them anew for each request costs more than relaying it.
_WHOLE = vars(ChatMessageContent(role=AuthorRole.ASSISTANT, items=[]))
_PIECE = vars(StreamingChatMessageContent(role=AuthorRole.ASSISTANT, items=[], choice_index=0))


class RawConnector(ChatCompletionClientBase):
    """A connector with two entrances.

    *Raw*: `RawSettings.carrying(call)`, as the gateway does: the call holds the request, and the answer's bytes, as
    OpenAI writes them, come back in `inner_content`.

    *Plain*: any `ChatHistory` with `PromptExecutionSettings(extension_data={"model": …, "temperature": …})`, as any
    Semantic Kernel program does: the payload is built from both, nothing is added to it, and the answer is parsed into
    contents. Without a `model`, `ai_model_id` is asked for.

    `metadata` holds `input_tokens` and `output_tokens` (absent when the upstream reported no usage), `cost` (USD),
    `cached_tokens`, `reasoning_tokens`, `generation_id`, `provider`, `model`. Errors are UpstreamError's subclasses:
    transient and permanent ones, with status, body and Retry-After; CircuitOpen while the upstream is left alone.

    Tool calls are the caller's: they pass through and are never invoked here.
    """

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = False

    @abstractmethod
    def _errors(self) -> UpstreamErrors:
        """Makes the provider's errors."""

    @abstractmethod
    def _now(self) -> float:
        """The clock that a call's deadline is of."""

    def get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, **kwargs: Any
    ) -> Coroutine[Any, Any, list[ChatMessageContent]]:
        """As everywhere; of settings that carry a call there is nothing to copy, to adapt or to invoke functions by."""
        if carried_call(settings) is not None:
            return self._inner_get_chat_message_contents(chat_history, settings)
        return super().get_chat_message_contents(chat_history, settings, **kwargs)

    def get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, **kwargs: Any
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        """The same for streams."""
        if carried_call(settings) is not None:
            return self._inner_get_streaming_chat_message_contents(chat_history, settings)
        return super().get_streaming_chat_message_contents(chat_history, settings, **kwargs)

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return RawSettings

    def get_prompt_execution_settings_from_settings(self, settings: PromptExecutionSettings) -> RawSettings:
        """Any service's settings, by the names that they have on the wire."""
        named = settings.prepare_settings_dict()
        fields = type(settings).model_fields.keys() | named.keys()
        return RawSettings(
            service_id=settings.service_id,
            extension_data={k: v for k, v in settings.extension_data.items() if k not in fields} | named,
        )

    def _plain_call(self, history: ChatHistory, settings: PromptExecutionSettings, *, stream: bool) -> UpstreamCall:
        parameters = {name: value for name, value in settings.extension_data.items() if name not in _OURS}
        model = settings.extension_data.get("model") or self.ai_model_id
        payload = {**parameters, "model": model, "messages": history_messages(history)}
        if stream:
            payload["stream"] = True
        return UpstreamCall(
            body=json.dumps(payload).encode(),
            model=model,
            deadline=self._now() + _DEFAULT_TIMEOUT_SECONDS,
            whole_events=True,
        )

    def _whole(self, body: bytes, metadata: dict[str, Any], raw: UpstreamCall | None) -> list[ChatMessageContent]:
        """The contents of an answer: its bytes for who carried a call, else parsed."""
        if raw is not None:
            return [bare(ChatMessageContent, {**_WHOLE, "items": [], "inner_content": body, "metadata": metadata})]
        try:
            return message_contents(body, self.ai_model_id, metadata)
        except _UNREADABLE as problem:
            raise self._errors().invalid("its choices cannot be read", body) from problem

    def _chunk(
        self, data: bytes, metadata: dict[str, Any], attempt: int, raw: UpstreamCall | None
    ) -> list[StreamingChatMessageContent]:
        """The same for a piece of a stream."""
        if raw is not None:
            fields = {**_PIECE, "items": [], "inner_content": data, "metadata": metadata}
            return [bare(StreamingChatMessageContent, fields)]
        try:
            return chunk_contents(data, self.ai_model_id, metadata, attempt)
        except _UNREADABLE as problem:
            raise self._errors().invalid("an event cannot be read", data) from problem


def carried_call(settings: PromptExecutionSettings) -> UpstreamCall | None:
    """The call that the gateway's settings carry; None for those of other programs."""
    return settings.call if isinstance(settings, RawSettings) else None


def told_metadata(
    facts: AnswerFacts, call: UpstreamCall, provider: str, *, expects_usage: bool = True
) -> dict[str, Any]:
    """What an answer says of itself, as metadata of contents; a missing usage is logged where one is expected."""
    usage = facts.usage
    if usage is None:
        if expects_usage:
            _logger.error("upstream reported no usage", extra={"request_id": call.request_id, "provider": provider})
        return {"generation_id": facts.generation_id, "provider": facts.upstream_provider}
    return {
        "generation_id": facts.generation_id,
        "provider": facts.upstream_provider,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": usage.cost and usage.cost.usd,
    }


def log_failure(call: UpstreamCall, error: UpstreamError) -> None:
    """Logs what the upstream failed the call with."""
    _logger.error(
        "upstream call failed",
        extra={
            "request_id": call.request_id,
            "provider": error.provider,
            "upstream_status": error.status,
            "reason": error.kind,
            "attempts": call.attempts,
            **detail_for_the_log(error.__cause__),
        },
    )
