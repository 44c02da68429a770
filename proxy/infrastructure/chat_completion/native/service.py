"""A provider with a dialect of its own as a Semantic Kernel chat completion service with OpenAI's bytes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import ClientResponse
from pydantic import PrivateAttr
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, ChatMessageContent, StreamingChatMessageContent

from proxy.application.upstream import IS_LAST, UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import GatewayError, InvalidRequest, UpstreamError
from proxy.infrastructure.chat_completion.connector import RawConnector, carried_call, log_failure, told_metadata
from proxy.infrastructure.chat_completion.headers import CallHeaders
from proxy.infrastructure.chat_completion.native.answers import ChunkWriter, UnusableAnswer, completion
from proxy.infrastructure.chat_completion.native.members import Members, read_request
from proxy.infrastructure.chat_completion.native.messages import read_history
from proxy.infrastructure.chat_completion.native.stream import NativeStream, Truncated
from proxy.infrastructure.chat_completion.native.transport import ATTEMPT, Attempt
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.usage import WholeAnswer
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.resilience import Resilience

_logger = logging.getLogger(__name__)


class NativeDialect(Protocol):
    """What differs between providers."""

    def connector(self, model: str) -> ChatCompletionClientBase:
        """Semantic Kernel's, asking for that model, with contents that say what `answers` reads."""
        ...

    def settings(self, request: Members, model: str) -> PromptExecutionSettings:
        """The connector's settings for a request; takes all members but `messages`. Raises InvalidRequest."""
        ...

    def told_error(self, problem: BaseException) -> Mapping[str, Any] | None:
        """The error that the provider told of in the middle of a 2xx answer, if this exception is about one."""
        ...


@dataclass(frozen=True, slots=True)
class NativeParts:
    """What a native service stands on."""

    dialect: NativeDialect
    settings: WireSettings
    headers: CallHeaders
    errors: UpstreamErrors
    resilience: Resilience


class NativeChatCompletion(RawConnector):
    """RawConnector over Semantic Kernel's own one: the call's body is translated for it, and the contents that come
    back are written as OpenAI's bytes.

    Raises, beside what RawConnector does:
        InvalidRequest: the request holds what the provider's dialect, or its connector, cannot carry
    """

    _parts: NativeParts = PrivateAttr()

    def __init__(self, parts: NativeParts, *, service_id: str, ai_model_id: str) -> None:
        super().__init__(ai_model_id=ai_model_id, service_id=service_id)
        self._parts = parts

    @property
    def standing_headers(self) -> Mapping[str, str]:
        """The headers of every call, key included: for other requests to the same server, such as `GET /models`."""
        return self._parts.headers.standing

    def _errors(self) -> UpstreamErrors:
        return self._parts.errors

    def _now(self) -> float:
        return self._parts.resilience.timing.clock()

    def service_url(self) -> str | None:
        return self._parts.settings.base_url

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        raw = carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=False)
        try:
            body, response = await self._fetch(call)
        except UpstreamError as error:
            log_failure(call, error)
            raise
        facts = call.answer.facts()
        metadata = self._opening_metadata(facts.model, "application/json", response.headers) | self._metadata(
            facts, call
        )
        return self._whole(body, metadata, raw)

    async def _fetch(self, call: UpstreamCall) -> tuple[bytes, ClientResponse]:
        prompt, connector = self._prompt(call), self._parts.dialect.connector(call.model)
        bodies: list[bytes] = []

        async def ask(_attempt: Attempt) -> None:
            contents = await connector.get_chat_message_contents(prompt.history, prompt.settings)
            bodies.append(completion(contents[0], call.model))

        response = await self._run(call, ask, stream=False)
        answer = WholeAnswer(bodies[-1])
        call.answer = answer
        call.generates(answer.facts().generation_id)
        return bodies[-1], response

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        raw = carried_call(settings)
        call = raw or self._plain_call(chat_history, settings, stream=True)
        stream: NativeStream | None = None
        try:
            stream = await self._open(call)
            call.generates(stream.writer.id)
            metadata = self._opening_metadata(stream.writer.model, "text/event-stream", stream.headers)
            if opening := stream.opening():
                yield self._chunk(opening, metadata, function_invoke_attempt, raw)
                metadata = {}
            async for data in stream:
                call.generates(stream.writer.id)
                yield self._chunk(data, metadata | self._ending(stream, call), function_invoke_attempt, raw)
                metadata = {}
        except UpstreamError as error:
            log_failure(call, error)
            raise
        finally:
            call.hang_up()
            if stream is not None:
                await stream.aclose()

    async def _open(self, call: UpstreamCall) -> NativeStream:
        prompt = self._prompt(call)
        streams: list[NativeStream] = []

        async def ask(attempt: Attempt) -> None:
            stream = self._stream(call, prompt, attempt)
            is_good = False
            try:
                await stream.begin(self._parts.settings.stream_hold_seconds)
                is_good = True
            finally:
                if not is_good:
                    await stream.aclose()
            streams.append(stream)

        response = await self._run(call, ask, stream=True)
        call.hang_up = response.close
        call.answer = streams[-1].writer
        return streams[-1]

    def _stream(self, call: UpstreamCall, prompt: _Prompt, attempt: Attempt) -> NativeStream:
        connector = self._parts.dialect.connector(call.model)
        return NativeStream(
            connector.get_streaming_chat_message_contents(prompt.history, prompt.settings),
            ChunkWriter(call.model, include_usage=prompt.include_usage),
            attempt,
            lambda problem: self._explained(problem, attempt),
            self._parts.settings.provider,
        )

    def _prompt(self, call: UpstreamCall) -> _Prompt:
        request = Members(read_request(call.body), "", self._parts.settings.provider)
        options = request.object("stream_options") or {}
        history = read_history(request)
        settings = self._parts.dialect.settings(request, call.model)
        return _Prompt(history, settings, include_usage=options.get("include_usage") is True)

    async def _run(
        self, call: UpstreamCall, ask: Callable[[Attempt], Awaitable[None]], *, stream: bool
    ) -> ClientResponse:
        resilience = self._parts.resilience
        started = time.perf_counter()
        try:
            return await resilience.run(
                lambda: self._attempt(Attempt(call, stream), ask),
                call.deadline,
                call.blamed,
                call.max_attempts,
                call=call,
            )
        finally:
            call.upstream_seconds += time.perf_counter() - started

    async def _attempt(self, attempt: Attempt, ask: Callable[[Attempt], Awaitable[None]]) -> ClientResponse:
        """One try, up to the point where `ask` is content; the connection is closed if anything goes wrong."""
        call = attempt.call
        token = ATTEMPT.set(attempt)
        deadline = asyncio.timeout(call.deadline - self._now())
        response: ClientResponse | None = None
        try:
            async with deadline:
                await ask(attempt)
            response = attempt.response
        except TimeoutError as problem:
            if deadline.expired():
                raise self._parts.errors.out_of_time() from problem
            raise self._explained(problem, attempt) from problem
        except Exception as problem:
            raise self._explained(problem, attempt) from problem
        finally:
            ATTEMPT.reset(token)
            if response is None and attempt.response is not None:
                attempt.response.close()
        if response is None:
            raise AssertionError  # an answer without a request
        facts = {"provider": self._parts.settings.provider, "status": response.status}
        _logger.info("upstream answered", extra={"request_id": call.request_id, **facts})
        return response

    def _explained(self, problem: BaseException, attempt: Attempt) -> GatewayError:
        """What went wrong, whatever the SDK and Semantic Kernel have wrapped it in."""
        parts, response = self._parts, attempt.response
        if isinstance(problem, Truncated):
            return parts.errors.invalid("the stream ended before its first chunk", b"")
        for cause in _causes(problem):
            if isinstance(cause, GatewayError):
                return cause
            if isinstance(cause, UnusableAnswer):
                return parts.errors.invalid(str(cause), b"")
            told = parts.dialect.told_error(cause)
            if told is not None and response is not None:
                back = parts.headers.handed_back(response.headers)
                return parts.errors.from_error_member(told, b"", response.headers, back)
        reason = type(problem.__cause__ or problem).__name__
        if response is None:
            facts = {"provider": parts.settings.provider, "reason": reason}
            _logger.error("request not understood", extra={"request_id": attempt.call.request_id, **facts})
            return InvalidRequest(
                f"The request cannot be put into the words of provider '{parts.settings.provider}' ({reason})."
            )
        return parts.errors.invalid(f"it cannot be read ({reason})", b"")

    def _ending(self, stream: NativeStream, call: UpstreamCall) -> dict[str, Any]:
        """The metadata of the content that completes the answer; empty for all others."""
        return {IS_LAST: True} | self._metadata(stream.writer.facts(), call) if stream.done else {}

    def _opening_metadata(self, model: str | None, content_type: str, headers: Mapping[str, str]) -> dict[str, Any]:
        return {"model": model, "content_type": content_type, "headers": self._parts.headers.handed_back(headers)}

    def _metadata(self, facts: AnswerFacts, call: UpstreamCall) -> dict[str, Any]:
        return told_metadata(facts, call, self._parts.settings.provider)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request in Semantic Kernel's words."""

    history: ChatHistory
    settings: PromptExecutionSettings
    include_usage: bool


def _causes(problem: BaseException) -> list[BaseException]:
    """The exception, what caused it, what caused that, …"""
    causes = [problem]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return causes
