"""The wire path to an OpenAI-compatible upstream: bytes out, bytes in, trouble as typed errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Self

from aiohttp import ClientError, ClientResponse, ClientSession, ConnectionTimeoutError
from yarl import URL

from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import StreamBroken, UpstreamError
from proxy.infrastructure.chat_completion.opening import HOLD_SECONDS, Opening, read_opening
from proxy.infrastructure.chat_completion.sse import HOLD_BYTES, EventAligner, says_done
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.usage import Malformed, StreamTail, WholeAnswer, text_of
from proxy.infrastructure.resilience import Resilience

_logger = logging.getLogger(__name__)
_OK, _FIRST_NOT_OK, _BAD_GATEWAY = 200, 300, 502
_REFUSALS = range(400, 500)
_AFTER_DONE_SECONDS = 1.0
_LARGE_BODY_BYTES = 1024 * 1024
_ERROR_BODY_BYTES = 256 * 1024
_SENT_ON = (
    "HTTP-Referer",
    "X-Title",
    "X-OpenRouter-Title",
    "X-OpenRouter-Categories",
    "X-OpenRouter-Metadata",
    "traceparent",
    "tracestate",
)
_SENT_ON_BY_LOWER = {name.lower(): name for name in _SENT_ON}
_HANDED_BACK = (
    "x-generation-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "openai-processing-ms",
    "openai-version",
)


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Where an upstream is and how long to wait for it. `api_key` is sent as bearer token, unless empty."""

    provider: str
    base_url: str
    api_key: str = ""
    first_byte_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 60.0
    stream_total_timeout_seconds: float = 3600.0
    stream_hold_seconds: float = HOLD_SECONDS


class Wire:
    """Sends calls to one upstream. Every method raises UpstreamError or CircuitOpen for the upstream's trouble."""

    def __init__(self, settings: WireSettings, session: ClientSession, resilience: Resilience) -> None:
        self.settings = settings
        self.errors = UpstreamErrors(settings.provider, (settings.api_key,))
        self._session = session
        self._resilience = resilience
        self._url = URL(settings.base_url.rstrip("/") + "/chat/completions")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "llmgateway"}
        if settings.api_key:
            self._headers["Authorization"] = f"Bearer {settings.api_key}"

    def now(self) -> float:
        """The clock that a call's deadline is of."""
        return self._resilience.timing.clock()

    async def fetch(self, call: UpstreamCall) -> tuple[bytes, ClientResponse]:
        """The whole answer to a call."""

        async def read(response: ClientResponse) -> None:
            body = await response.read()
            try:
                answer = WholeAnswer(body)
            except Malformed as problem:
                raise self.errors.invalid(str(problem), body) from problem
            if answer.error is not None:
                raise self.errors.from_error_member(answer.error, body, response.headers, handed_back(response.headers))
            call.answer = answer

        response = await self._run(call, read)
        return await response.read(), response  # read before: this returns what is kept

    async def open(self, call: UpstreamCall) -> WireStream:
        """A stream that has begun without an error."""
        openings: list[Opening] = []

        async def read(response: ClientResponse) -> None:
            opening = await read_opening(response.content, self.settings.stream_hold_seconds)
            if opening.error is not None:
                back = handed_back(response.headers)
                raise self.errors.from_error_member(opening.error, opening.held, response.headers, back)
            if opening.ended:
                raise self.errors.invalid("the stream ended before its first chunk", opening.held)
            openings.append(opening)

        response = await self._run(call, read)
        call.hang_up = response.close
        opening = openings[-1]
        if call.generation_id is None and opening.chunk is not None:
            call.generates(text_of(opening.chunk.id))
        return WireStream(self, call, response, opening)

    async def _run(self, call: UpstreamCall, read: Callable[[ClientResponse], Awaitable[None]]) -> ClientResponse:
        started = time.perf_counter()
        try:
            return await self._resilience.run(
                lambda: self._attempt(call, read), call.deadline, call.blamed, call.max_attempts
            )
        finally:
            call.upstream_seconds += time.perf_counter() - started

    async def _attempt(self, call: UpstreamCall, read: Callable[[ClientResponse], Awaitable[None]]) -> ClientResponse:
        """One try, up to the point where `read` is content; the connection is closed if anything goes wrong."""
        call.attempts += 1
        call.generation_id = None
        response: ClientResponse | None = None
        good = False
        deadline = asyncio.timeout(call.deadline - self.now())
        try:
            async with deadline:
                response = await self._post(call)
                if not _OK <= response.status < _FIRST_NOT_OK:
                    error = await self._error(response)
                    call.refusals += response.status in _REFUSALS
                    raise error
                call.generates(response.headers.get("X-Generation-Id"))
                await read(response)
            good = True
        except TimeoutError as problem:
            if deadline.expired():
                raise self.errors.out_of_time() from problem
            raise self.errors.timeout("did not go on", self.settings.idle_timeout_seconds) from problem
        except (ClientError, OSError) as problem:
            raise self.errors.unreachable(problem) from problem
        finally:
            if response is not None and not good:
                response.close()
        _logger.info("upstream answered", extra={"provider": self.settings.provider, "status": response.status})
        return response

    async def _post(self, call: UpstreamCall) -> ClientResponse:
        limit = self.settings.first_byte_timeout_seconds
        try:
            async with asyncio.timeout(limit):
                # aiohttp writes bytes in one go, and a file in pieces with back-pressure; each try needs its own.
                body = call.body if len(call.body) < _LARGE_BODY_BYTES else BytesIO(call.body)
                return await self._session.post(
                    self._url, data=body, headers=self._request_headers(call), allow_redirects=False
                )
        except ConnectionTimeoutError as problem:
            raise self.errors.unreachable(problem) from problem
        except TimeoutError as problem:
            raise self.errors.timeout("did not begin to answer", limit) from problem

    def _request_headers(self, call: UpstreamCall) -> Mapping[str, str]:
        sent_on = {name: value for name in _SENT_ON if (value := call.headers.get(name)) is not None}
        for name in call.headers.get("Connection", "").split(","):
            sent_on.pop(_SENT_ON_BY_LOWER.get(name.strip().lower(), ""), None)  # meant for this hop (RFC 9110, 7.6.1)
        return {**self._headers, **sent_on}

    async def _error(self, response: ClientResponse) -> UpstreamError:
        async with asyncio.timeout(self.settings.first_byte_timeout_seconds):
            body = await _read_at_most(response, _ERROR_BODY_BYTES)
        return self.errors.from_response(response.status, response.headers, body, handed_back(response.headers))


class WireStream:
    """An open stream: `opening` first, then iterate. Bytes come out between events, in order, none changed.

    Iteration raises StreamBroken when the upstream stops before `[DONE]`.
    """

    def __init__(self, wire: Wire, call: UpstreamCall, response: ClientResponse, opening: Opening) -> None:
        self.headers = response.headers
        self.model = text_of(opening.chunk.model) if opening.chunk else None
        self.done = False
        self._settings = wire.settings
        self._tail = StreamTail()
        self._response = response
        self._aligner = EventAligner(hold_bytes=None if call.whole_events else HOLD_BYTES)
        self._told = False
        self._deadline = time.monotonic() + wire.settings.stream_total_timeout_seconds
        self.opening = self._passing(opening.held)
        call.answer = self._tail

    def facts(self) -> AnswerFacts:
        """What the stream has said of itself so far."""
        return self._tail.facts()

    def is_just_done(self) -> bool:
        """True once: for the bytes with which the answer is complete."""
        first, self._told = self.done and not self._told, self._told or self.done
        return first

    def raise_told_error(self) -> None:
        """Raises the error that the stream told of, if it did, though it went on to its end."""
        if self.facts().error_message is not None:
            raise self._broken("told of an error", "error")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            data = await (self._read_after_done() if self.done else self._read())
            if not data:
                return self._last_bytes()
            whole = self._passing(data)
            if whole:
                return whole

    def _passing(self, data: bytes) -> bytes:
        whole = self._aligner.push(data)
        if whole:
            self._tail.feed(whole)
            self.done = self.done or says_done(whole)
        return whole

    async def _read(self) -> bytes:
        settings = self._settings
        if time.monotonic() > self._deadline:
            raise self._broken(f"did not finish within {settings.stream_total_timeout_seconds:g} s", "timeout")
        try:
            return await self._response.content.readany()
        except TimeoutError as problem:
            raise self._broken(f"sent nothing for {settings.idle_timeout_seconds:g} s", "timeout") from problem
        except (ClientError, OSError) as problem:
            raise self._broken("broke off", "connection") from problem

    async def _read_after_done(self) -> bytes:
        """Whatever follows `[DONE]`, if it comes soon: the client need not wait for the upstream to hang up."""
        try:
            async with asyncio.timeout(_AFTER_DONE_SECONDS):
                return await self._response.content.readany()
        except (TimeoutError, ClientError, OSError):
            self._response.close()
            return b""

    def _last_bytes(self) -> bytes:
        if not self.done:
            raise self._broken("ended before it was complete", "truncated")
        rest, self._aligner = self._aligner.rest(), EventAligner(HOLD_BYTES)
        if not rest:
            raise StopAsyncIteration
        return rest

    def _broken(self, what: str, kind: str) -> StreamBroken:
        self._response.close()
        said = self._tail.facts().error_message
        provider = self._settings.provider
        error = StreamBroken(
            said or f"The stream from {provider} {what}.", status=_BAD_GATEWAY, kind=f"stream_{kind}", provider=provider
        )
        error.told = said is not None
        return error


def handed_back(headers: Mapping[str, str]) -> dict[str, str]:
    """The upstream's headers that a client may see."""
    return {name: value for name in _HANDED_BACK if (value := headers.get(name)) is not None}


async def _read_at_most(response: ClientResponse, limit_bytes: int) -> bytes:
    body = b""
    while len(body) < limit_bytes and (data := await response.content.readany()):
        body += data
    return body
