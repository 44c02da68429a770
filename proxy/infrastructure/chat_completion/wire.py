"""The wire path to an OpenAI-compatible upstream: bytes out, bytes in, trouble as typed errors."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientSession, ConnectionTimeoutError
from yarl import URL

from proxy.application.upstream import UpstreamCall
from proxy.domain.errors import UpstreamError
from proxy.infrastructure.chat_completion.dialect import Dialect, UsageInStreams
from proxy.infrastructure.chat_completion.headers import CallHeaders
from proxy.infrastructure.chat_completion.opening import HOLD_SECONDS, Opening, read_opening
from proxy.infrastructure.chat_completion.reading import Malformed, text_of
from proxy.infrastructure.chat_completion.stream_usage import asking_for_usage
from proxy.infrastructure.chat_completion.told_errors import errors_without_secrets
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors
from proxy.infrastructure.chat_completion.usage import WholeAnswer
from proxy.infrastructure.chat_completion.wire_stream import StreamRules, WireStream
from proxy.infrastructure.posting import BodyTooLarge, DirectReply, Reply, poster, read_body
from proxy.infrastructure.resilience import Resilience

_logger = logging.getLogger(__name__)
_OK, _FIRST_NOT_OK = 200, 300
_REFUSALS = range(400, 500)
_ERROR_BODY_BYTES = 256 * 1024
_ANSWER_BYTES = 128 * 1024 * 1024
_SECRET_HEADER = re.compile(r"(?i)auth|key|token|secret|cookie")

_Read = Callable[[Reply], Awaitable[None]]  # raises what it does not like of an answer


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Where an upstream is, what every call to it carries, and how long to wait for it.

    `provider` is its name in errors, logs and rows. Without an `api_key` none is sent. `headers` are the operator's
    own; they win over the client's. `done_marker` and `usage_in_streams` are the dialect's if None.
    `answer_timeout_seconds` is for the first byte of an answer that is not streamed.
    """

    provider: str
    base_url: str
    api_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    done_marker: bool | None = None
    usage_in_streams: UsageInStreams | None = None
    first_byte_timeout_seconds: float = 30.0
    answer_timeout_seconds: float = 600.0
    idle_timeout_seconds: float = 60.0
    stream_total_timeout_seconds: float = 3600.0
    stream_hold_seconds: float = HOLD_SECONDS
    max_answer_bytes: int = _ANSWER_BYTES

    def patience_seconds(self, *, stream: bool) -> float:
        """Until the first byte of an answer."""
        return self.first_byte_timeout_seconds if stream else self.answer_timeout_seconds


class Wire:
    """Sends calls to one upstream. Every method raises UpstreamError or CircuitOpen for the upstream's trouble."""

    def __init__(
        self, settings: WireSettings, session: ClientSession, resilience: Resilience, dialect: Dialect
    ) -> None:
        self.settings = settings
        self.errors = UpstreamErrors(settings.provider, secrets_of(settings))
        self._resilience = resilience
        self._headers = CallHeaders(dialect, settings.api_key, settings.headers)
        self._post = poster(session, _completions_url(settings.base_url), self._headers.standing)
        self.handed_back = self._headers.handed_back
        self.standing_headers: Mapping[str, str] = self._headers.standing
        self._generation_id_header = dialect.generation_id_header
        self.usage_in_streams = settings.usage_in_streams or dialect.usage_in_streams
        self._stream_rules = StreamRules(
            provider=settings.provider,
            idle_timeout_seconds=settings.idle_timeout_seconds,
            total_timeout_seconds=settings.stream_total_timeout_seconds,
            done_marker=dialect.done_marker if settings.done_marker is None else settings.done_marker,
            redacted=self.errors.redacted,
        )

    def now(self) -> float:
        """The clock that a call's deadline is of."""
        return self._resilience.timing.clock()

    async def fetch(self, call: UpstreamCall) -> tuple[bytes, Reply]:
        """The whole answer to a call."""
        bodies: list[bytes] = []

        async def read(response: Reply) -> None:
            try:
                body = await read_body(response, self.settings.max_answer_bytes)
            except BodyTooLarge as problem:
                raise self.errors.too_large(self.settings.max_answer_bytes) from problem
            try:
                answer = WholeAnswer(body)
            except Malformed as problem:
                raise self.errors.invalid(str(problem), body) from problem
            if answer.error is not None:
                raise self.errors.from_error_member(
                    answer.error, body, response.headers, self.handed_back(response.headers)
                )
            call.answer = answer
            bodies.append(errors_without_secrets(body, answer.choice_errors, self.errors.redacted))

        response = await self._run(call, call.body, read)
        return bodies[-1], response

    async def open(self, call: UpstreamCall) -> WireStream:
        """A stream that has begun without an error."""
        openings: list[Opening] = []

        async def read(response: Reply) -> None:
            opening = await read_opening(response.content, self.settings.stream_hold_seconds)
            if opening.error is not None:
                back = self.handed_back(response.headers)
                raise self.errors.from_error_member(opening.error, opening.held, response.headers, back)
            if opening.ended:
                raise self._no_stream(opening.held, response)
            openings.append(opening)

        body = self._asking_for_usage(call.body)
        response = await self._run(call, body or call.body, read, stream=True)
        call.hang_up = response.close
        opening = openings[-1]
        stream = WireStream(self._stream_rules, call, response, opening, hides_usage=body is not None)
        if call.generation_id is None and opening.chunk is not None and not stream.done:
            call.generates(text_of(opening.chunk.id))
        return stream

    def _asking_for_usage(self, body: bytes) -> bytes | None:
        """The body that asks for usage, if that is needed and the client did not: then it does not expect any."""
        return asking_for_usage(body) if self.usage_in_streams is UsageInStreams.ON_REQUEST else None

    async def _run(self, call: UpstreamCall, body: bytes, read: _Read, *, stream: bool = False) -> Reply:
        started = time.perf_counter()
        try:
            return await self._resilience.run(
                partial(self._attempt, call, body, read, stream=stream),
                call.deadline,
                call.blamed,
                call.max_attempts,
                call=call,
            )
        finally:
            call.upstream_seconds += time.perf_counter() - started

    async def _attempt(self, call: UpstreamCall, body: bytes, read: _Read, *, stream: bool) -> Reply:
        """One try, up to the point where `read` is content; the connection is closed if anything goes wrong."""
        call.attempts += 1
        call.generation_id = None
        response: Reply | None = None
        good = False
        left_seconds = call.deadline - self.now()
        patience_seconds = self.settings.patience_seconds(stream=stream)
        most_seconds = min(left_seconds, patience_seconds)
        try:
            response = await self._post(
                body, self._headers.sent_on(call.headers), most_seconds=most_seconds, stream=stream
            )
            if isinstance(response, DirectReply):
                if not response.is_over:
                    response.keep_time(call.deadline - self.now(), self.settings.idle_timeout_seconds)
                await self._judge(call, response, read)
            else:
                async with asyncio.timeout(call.deadline - self.now()):
                    await self._judge(call, response, read)
            good = True
        except (ClientConnectorError, ConnectionTimeoutError) as problem:
            call.refusals += 1  # without a connection nothing can have been sent
            raise self.errors.unreachable(problem) from problem
        except TimeoutError as problem:
            waited_seconds = None if most_seconds == left_seconds else patience_seconds
            raise self._late(call, response, waited_seconds) from problem
        except (ClientError, OSError) as problem:
            raise self.errors.unreachable(problem) from problem
        finally:
            if response is not None and not good:
                response.close()
        if _logger.isEnabledFor(logging.INFO):
            facts = {"request_id": call.request_id, "provider": self.settings.provider, "status": response.status}
            _logger.info("upstream answered", extra=facts)
        return response

    async def _judge(self, call: UpstreamCall, response: Reply, read: _Read) -> None:
        if not _OK <= response.status < _FIRST_NOT_OK:
            body = await read_error_body(response, self.settings.first_byte_timeout_seconds)
            call.refusals += response.status in _REFUSALS
            back = self.handed_back(response.headers)
            raise self.errors.from_response(response.status, response.headers, body, back)
        if self._generation_id_header:
            generation_id = response.headers.get(self._generation_id_header)
            if isinstance(response, DirectReply) and response.is_over:
                call.generation_id = generation_id  # nothing is to be noted of what has ended: the row will tell it
            else:
                call.generates(generation_id)
        await read(response)

    def _late(self, call: UpstreamCall, response: Reply | None, waited_seconds: float | None) -> UpstreamError:
        """What to say of a try that took too long, by what it waited for, or how long. None: till the deadline."""
        if response is None:
            if waited_seconds is None:
                return self.errors.out_of_time()
            return self.errors.timeout("did not begin to answer", waited_seconds)
        if response.is_out_of_time if isinstance(response, DirectReply) else self.now() >= call.deadline:
            return self.errors.out_of_time()
        return self.errors.timeout("did not go on", self.settings.idle_timeout_seconds)

    def _no_stream(self, body: bytes, response: Reply) -> UpstreamError:
        """What came instead of a stream, with 200: the error that it is if it is one."""
        try:
            error = WholeAnswer(body).error
        except Malformed:
            error = None
        if error is None:
            return self.errors.invalid("the stream ended before its first chunk", body)
        return self.errors.from_error_member(error, body, response.headers, self.handed_back(response.headers))


async def read_error_body(response: Reply | ClientResponse, most_seconds: float) -> bytes:
    """What comes of it, 256 KiB at most: if it is cut or does not end, the status still says what it is."""
    body = b""
    with suppress(TimeoutError, ClientError, OSError):
        async with asyncio.timeout(most_seconds):
            while len(body) < _ERROR_BODY_BYTES and (data := await response.content.readany()):
                body += data
    return body


def _completions_url(base_url: str) -> URL:
    """Of a base URL with a query (`?api-version=preview`) too."""
    base = URL(base_url.rstrip("/"))
    return base.joinpath("chat", "completions").with_query(base.query)


def secrets_of(settings: WireSettings) -> tuple[str, ...]:
    """The key, and the operator's headers that may hold others."""
    return (settings.api_key, *(value for name, value in settings.headers.items() if _SECRET_HEADER.search(name)))
