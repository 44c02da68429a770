"""Any OpenAI-compatible server as a Semantic Kernel chat completion service."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from aiohttp import ClientSession
from pydantic import PrivateAttr
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, StreamingChatMessageContent

from proxy.application.raw_call import RawSettings
from proxy.application.upstream import IS_LAST, UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import UpstreamError
from proxy.infrastructure.chat_completion.contents import chunk_contents, history_messages, message_contents
from proxy.infrastructure.chat_completion.dialect import OPENAI, Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.wire import Wire, WireSettings
from proxy.infrastructure.chat_completion.wire_stream import WireStream
from proxy.infrastructure.resilience import Resilience

_logger = logging.getLogger(__name__)
_DEFAULT_TIMEOUT_SECONDS = 600.0
_UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)  # what JSON of another shape leads to
_OURS = ("model", "messages", "stream")  # each has its own way into a payload


class OpenAICompatibleChatCompletion(ChatCompletionClientBase):
    """A connector with two entrances over one wire path.

    *Raw*: `RawSettings.carrying(call)`, as the gateway does: the call's body goes out as it is, and the answer's bytes
    come back in `inner_content`, one content per socket read when streaming.

    *Plain*: any `ChatHistory` with `PromptExecutionSettings(extension_data={"model": …, "temperature": …})`, as any
    Semantic Kernel program does: the payload is built from both, nothing is added to it, and the answer is parsed into
    contents. Without a `model`, `ai_model_id` is asked for.

    `metadata` holds `input_tokens` and `output_tokens` (absent when the upstream reported no usage), `cost` (USD),
    `cached_tokens`, `reasoning_tokens`, `generation_id`, `provider`, `model`. Errors are UpstreamError's subclasses:
    transient and permanent ones, with status, body and Retry-After; CircuitOpen while the upstream is left alone.

    Tool calls are the caller's: they pass through and are never invoked here.
    """

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = False

    _wire: Wire = PrivateAttr()

    def __init__(
        self,
        settings: WireSettings,
        session: ClientSession,
        resilience: Resilience,
        *,
        service_id: str,
        ai_model_id: str,
        dialect: Dialect = OPENAI,
    ) -> None:
        super().__init__(ai_model_id=ai_model_id, service_id=service_id)
        self._wire = Wire(settings, session, resilience, dialect)

    @property
    def standing_headers(self) -> Mapping[str, str]:
        """The headers of every call, key included: for other requests to the same server, such as `GET /models`."""
        return self._wire.standing_headers

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return RawSettings

    def get_prompt_execution_settings_from_settings(self, settings: PromptExecutionSettings) -> RawSettings:
        """Any service's settings, by the names that they have on the wire."""
        named = settings.prepare_settings_dict()
        fields = {name for name, field in type(settings).model_fields.items()} | named.keys()
        return RawSettings(
            service_id=settings.service_id,
            extension_data={k: v for k, v in settings.extension_data.items() if k not in fields} | named,
        )

    def service_url(self) -> str | None:
        return self._wire.settings.base_url

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        raw = _carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=False)
        with self._logging(call):
            body, response = await self._wire.fetch(call)
        facts = call.answer.facts()
        metadata = self._opening_metadata(facts.model, response.content_type, response.headers) | self._metadata(facts)
        if raw is None:
            return self._parsed(body, metadata)
        return [ChatMessageContent(role=AuthorRole.ASSISTANT, items=[], inner_content=body, metadata=metadata)]

    def _parsed(self, body: bytes, metadata: dict[str, Any]) -> list[ChatMessageContent]:
        try:
            return message_contents(body, self.ai_model_id, metadata)
        except _UNREADABLE as problem:
            raise self._wire.errors.invalid("its choices cannot be read", body) from problem

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        raw = _carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=True)
        try:
            with self._logging(call):
                stream = await self._wire.open(call)
                opening = self._opening_metadata(stream.model, "text/event-stream", stream.headers)
                yield self._chunk(stream.opening, opening | self._ending(stream), function_invoke_attempt, raw)
                async for data in stream:
                    yield self._chunk(data, self._ending(stream), function_invoke_attempt, raw)
                if raw is None:
                    stream.raise_told_error()  # contents have no place for it; a client of the gateway has seen it
        finally:
            call.hang_up()

    @contextmanager
    def _logging(self, call: UpstreamCall) -> Iterator[None]:
        try:
            yield
        except UpstreamError as error:
            _logger.error(
                "upstream call failed",
                extra={
                    "request_id": call.request_id,
                    "provider": error.provider,
                    "upstream_status": error.status,
                    "reason": error.kind,
                    "attempts": call.attempts,
                },
            )
            raise

    def _ending(self, stream: WireStream) -> dict[str, Any]:
        """The metadata of the content that completes the answer; empty for all others."""
        return {IS_LAST: True} | self._metadata(stream.facts()) if stream.is_just_done() else {}

    def _chunk(
        self, data: bytes, metadata: dict[str, Any], attempt: int, raw: UpstreamCall | None
    ) -> list[StreamingChatMessageContent]:
        if raw is None:
            try:
                return chunk_contents(data, self.ai_model_id, metadata, attempt)
            except _UNREADABLE as problem:
                raise self._wire.errors.invalid("an event cannot be read", data) from problem
        return [
            StreamingChatMessageContent(
                role=AuthorRole.ASSISTANT, items=[], choice_index=0, inner_content=data, metadata=metadata
            )
        ]

    def _opening_metadata(self, model: str | None, content_type: str, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"model": model, "content_type": content_type, "headers": self._wire.handed_back(headers)}

    def _metadata(self, facts: AnswerFacts) -> dict[str, Any]:
        metadata: dict[str, Any] = {"generation_id": facts.generation_id, "provider": facts.upstream_provider}
        usage = facts.usage
        if usage is None:
            if self._wire.usage_in_streams is not UsageInStreams.NEVER:
                _logger.error("upstream reported no usage", extra={"provider": self._wire.settings.provider})
            return metadata
        return metadata | {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_tokens": usage.cached_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "cost": usage.cost and usage.cost.usd,
        }

    def _plain_call(self, history: ChatHistory, settings: PromptExecutionSettings, *, stream: bool) -> UpstreamCall:
        parameters = {name: value for name, value in settings.extension_data.items() if name not in _OURS}
        model = settings.extension_data.get("model") or self.ai_model_id
        payload = {**parameters, "model": model, "messages": history_messages(history)}
        if stream:
            payload["stream"] = True
        return UpstreamCall(
            body=json.dumps(payload).encode(),
            model=model,
            deadline=self._wire.now() + _DEFAULT_TIMEOUT_SECONDS,
            whole_events=True,
        )


def _carried_call(settings: PromptExecutionSettings) -> UpstreamCall | None:
    return settings.call if isinstance(settings, RawSettings) else None
