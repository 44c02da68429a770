"""Any OpenAI-compatible server as a Semantic Kernel chat completion service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar

from aiohttp import ClientSession
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, ChatMessageContent, StreamingChatMessageContent

from proxy.application.upstream import IS_ALL, IS_LAST, PUMP, UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import UpstreamError
from proxy.infrastructure.chat_completion.connector import RawConnector, carried_call, log_failure, told_metadata
from proxy.infrastructure.chat_completion.dialect import OPENAI, Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.wire import Wire, WireSettings
from proxy.infrastructure.chat_completion.wire_stream import WireStream
from proxy.infrastructure.resilience import Resilience


class OpenAICompatibleChatCompletion(RawConnector):
    """RawConnector over the wire: the call's body goes out as it is, and the answer's bytes come back as they are.

    When streaming there is one content per socket read.
    """

    wire: ClassVar[Wire]  # an instance's own is in its __dict__: pydantic's private attributes take 3 µs a look

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
        self.__dict__["wire"] = Wire(settings, session, resilience, dialect)

    @property
    def standing_headers(self) -> Mapping[str, str]:
        """The headers of every call, key included: for other requests to the same server, such as `GET /models`."""
        return self.wire.standing_headers

    def _errors(self) -> UpstreamErrors:
        return self.wire.errors

    def _now(self) -> float:
        return self.wire.now()

    def service_url(self) -> str | None:
        return self.wire.settings.base_url

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        raw = carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=False)
        try:
            body, response = await self.wire.fetch(call)
        except UpstreamError as error:
            log_failure(call, error)
            raise
        facts = call.answer.facts()
        metadata = self._metadata(facts, call)
        metadata.update(self._opening_metadata(facts.model, response.content_type, response.headers))
        return self._whole(body, metadata, raw)

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        raw = carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=True)
        try:
            stream = await self.wire.open(call)
            metadata = self._opening_metadata(stream.model, "text/event-stream", stream.headers)
            if stream.done:
                metadata.update(self._ending(stream, call))
                metadata[IS_ALL] = stream.is_all()
            else:
                metadata[PUMP] = stream.pump
            yield self._chunk(stream.opening, metadata, function_invoke_attempt, raw)
            async for data in stream:
                yield self._chunk(data, self._ending(stream, call), function_invoke_attempt, raw)
            if raw is None:
                stream.raise_told_error()  # contents have no place for it; a client of the gateway has seen it
        except UpstreamError as error:
            log_failure(call, error)
            raise
        finally:
            call.hang_up()

    def _ending(self, stream: WireStream, call: UpstreamCall) -> dict[str, Any]:
        """The metadata of the content that completes the answer; empty for all others."""
        return {IS_LAST: True} | self._metadata(stream.facts(), call) if stream.is_just_done() else {}

    def _opening_metadata(self, model: str | None, content_type: str, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"model": model, "content_type": content_type, "headers": self.wire.handed_back(headers)}

    def _metadata(self, facts: AnswerFacts, call: UpstreamCall) -> dict[str, Any]:
        expects_usage = self.wire.usage_in_streams is not UsageInStreams.NEVER
        return told_metadata(facts, call, self.wire.settings.provider, expects_usage=expects_usage)
