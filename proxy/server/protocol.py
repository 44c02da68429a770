"""A client's connection, below the application: aiohttp's own, with what it leaves open.

aiohttp has no time limit for a request's head or body, answers what it cannot parse in plain text with a trace in the
log, and takes some requests that a proxy before or behind it might understand differently. All of that is decided here,
before a request reaches the application. The hot path pays for one look at each head; time limits are looked after by
one sweep over all connections, so that no request needs a timer.

This file and others here use what aiohttp keeps private, as do upstream connections, the answers to completions and
their way around the application: tests/http/test_aiohttp_internals.py finds them all, and fails if that moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from proxy.application.outbox import GatheringTransport, Outbox
from proxy.domain.errors import GatewayError, HeadTooLarge, MalformedHttp, RequestTooSlow
from proxy.server.bad_requests import BadRequests, RefusalAnswer
from proxy.server.direct import DirectHandler, Serve
from proxy.server.framing import head_error, head_size_bytes, parser_error
from proxy.server.plain_requests import is_exactly

MAX_HEAD_BYTES: Final = 65_536
# Of a chunked body, what is neither data nor the frame of one-byte chunks: extensions, trailers, leading zeros.
_MAX_FRAMING_BYTES: Final = 65_536
_FRAMING_PER_BYTE: Final = 16
_SWEEPS_PER_TIMEOUT: Final = 16
_LONGEST_SWEEP_SECONDS: Final = 1.0
_BUFFER_BYTES: Final = 65_536
_LINGER_SECONDS: Final = 2.0
_GIVEN_UP_SECONDS: Final = 1.0  # for requests to end that are given up, which takes no waiting


@dataclass(frozen=True)
class Timeouts:
    """How long a client may take: for a head (from the connection's beginning, or from the head's first byte), between
    two requests, for a body without progress, and while there is something of an answer that it does not take."""

    head_seconds: float = 30.0
    keepalive_seconds: float = 75.0
    body_seconds: float = 30.0
    body_min_bytes_per_second: float = 1000.0
    write_stall_seconds: float = 60.0

    @property
    def sweep_seconds(self) -> float:
        """Between two looks at all connections: what a limit is missed by."""
        return min(_LONGEST_SWEEP_SECONDS, min(self.head_seconds, self.body_seconds) / _SWEEPS_PER_TIMEOUT)


class ClientConnection(DirectHandler):
    """One client's connection. Refuses what is not plain HTTP/1.0 or 1.1, and notes what the sweep needs."""

    __slots__ = (
        "_bad_requests",
        "_body",
        "_body_due",
        "_body_seen_bytes",
        "_closing_since",
        "_framed_body",
        "_framed_bytes",
        "_head_bytes",
        "_head_since",
        "_is_in_body",
        "_is_over",
        "_outbox",
        "_upgrade_body",
        "_upgrade_bytes",
    )
    transport: GatheringTransport | None

    def __init__(self, manager: ClientServer, **more: Any) -> None:
        super().__init__(manager, manager.direct, **more)
        self._bad_requests = manager.bad_requests
        self._outbox = manager.outbox
        self._is_over = False  # nothing more is taken; what still comes is thrown away
        self._body: StreamReader = EMPTY_PAYLOAD
        self._is_in_body = False
        self._framed_body: StreamReader = EMPTY_PAYLOAD
        self._framed_bytes = 0
        self._upgrade_body: StreamReader = EMPTY_PAYLOAD  # of a request whose wish for another protocol is not heeded
        self._upgrade_bytes = 0  # of it, that came with the head
        self._body_due = 0.0
        self._body_seen_bytes = 0
        self._head_bytes = 0
        self._head_since = 0.0
        self._closing_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(GatheringTransport(cast("asyncio.Transport", transport), self._outbox))

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        count = self._request_count
        super().data_received(data)
        new = self._request_count - count
        if new:
            message, payload = self._messages[-1]
            if (
                new == 1
                and not self._head_bytes
                and len(data) - payload.total_bytes <= MAX_HEAD_BYTES
                and type(message) is RawRequestMessage
                and head_error(message) is None
                and not message.upgrade
            ):  # nearly always: the rest is for the others
                self._body = payload
                self._is_in_body = not payload.is_eof()
                self._body_due = 0.0
            else:
                self._look_at_new(new, data)
        elif self._is_in_body:
            self._look_at_frame(len(data))
        elif data:
            self._look_at_part_of_head(len(data))

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # aiohttp's signature
        """Unless it was paused there is nothing to resume: aiohttp would run the parser over nothing at each read."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def _look_at_new(self, count: int, data: bytes) -> None:
        """Messages that the parser has just queued: heads, or what it could not parse."""
        read_bytes = self._head_bytes + len(data)
        self._head_bytes = 0
        messages = self._messages
        for index in range(len(messages) - count, len(messages)):
            message, payload = messages[index]
            error: GatewayError | None
            if isinstance(message, _ErrInfo):
                error = parser_error(message.exc)
            else:
                error = head_error(message)
                if error is None and read_bytes > MAX_HEAD_BYTES and head_size_bytes(message) > MAX_HEAD_BYTES:
                    error = HeadTooLarge(MAX_HEAD_BYTES)
            if error is not None:
                while len(messages) > index:
                    messages.pop()
                self._reject(error)
                return
            self._body = payload
        self._is_in_body = not self._body.is_eof()
        self._body_due = 0.0
        message = messages[-1][0]
        if isinstance(message, RawRequestMessage) and message.upgrade:
            self._look_behind_upgrade(data)

    def _look_behind_upgrade(self, data: bytes) -> None:
        """The parser throws away what it reads in one go behind a request that asks for another protocol.

        A request is the last of its connection unless there surely was nothing: while its body is on its way, that is
        seen when the body ends. Of data that begins with a line's end, the first empty line might not be the head's.
        """
        self._upgrade_body, self._upgrade_bytes = self._body, self._body.total_bytes
        if self._is_in_body:
            is_sure = not self._reading_paused
        else:
            is_sure = is_exactly(data, self._body) and not data.startswith((b"\r", b"\n"))
        if not is_sure:
            self._make_last()

    def _look_behind_upgraded_body(self) -> None:
        """More has come than the body: chunks have frames, so nobody knows of them, or there is something behind."""
        if self._upgrade_bytes + self._framed_bytes != self._body.total_bytes:
            self._make_last()

    def _make_last(self) -> None:
        """After the newest request the connection ends, and its answer says so if it has not begun."""
        if self._messages:
            message, payload = self._messages[-1]
            if isinstance(message, RawRequestMessage):
                self._messages[-1] = (message._replace(should_close=True), payload)
            return
        request = self._current_request
        if request is not None:
            request._message = request._message._replace(should_close=True)  # noqa: SLF001  # what keep_alive looks at
        self.close()

    def _look_at_frame(self, read_bytes: int) -> None:
        """Some of a body has come; how much of it was body is for the parser to know."""
        if self._body is not self._framed_body:
            self._framed_body, self._framed_bytes = self._body, 0
        self._is_in_body = not self._body.is_eof()
        self._framed_bytes += read_bytes
        if self._framed_bytes > _MAX_FRAMING_BYTES + _FRAMING_PER_BYTE * self._body.total_bytes:
            self._reject(MalformedHttp("The body's chunks carry too little.", "chunk_overhead"))
        elif self._body is self._upgrade_body and not self._is_in_body:
            self._look_behind_upgraded_body()

    def _look_at_part_of_head(self, read_bytes: int) -> None:
        if self._head_since < self._idle_since:
            self._head_since = self._loop.time()
        self._head_bytes += read_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._reject(HeadTooLarge(MAX_HEAD_BYTES))

    @property
    def _idle_since(self) -> float:
        """When the connection was made, or its last request was done with."""
        return self._next_keepalive_close_time - self._keepalive_timeout

    def _reject(self, error: GatewayError) -> None:
        """Answers with the error, after what was asked before, and takes nothing more."""
        self._is_over = True
        self._message_tail = b""
        if not self._body.is_eof():  # whoever reads the body answers; the connection ends with that
            self._break_body(web.RequestPayloadError(str(error)))
            self._body.feed_eof()
            self.close()
            return
        # aiohttp reads a body that has not ended for a while before it closes. Without that the client, which may be
        # sending still, would get a reset instead of the answer.
        never_ends = StreamReader(self, _BUFFER_BYTES, loop=self._loop)
        self._messages.append((_ErrInfo(400, error, ""), never_ends))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break_body(self, problem: Exception) -> None:
        if self._body.exception() is None:
            self._body.set_exception(problem)

    def _make_error_handler(self, err_info: _ErrInfo) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        error = err_info.exc if isinstance(err_info.exc, GatewayError) else parser_error(err_info.exc)

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            answer = RefusalAnswer(error)
            self._bad_requests.note(answer, request.remote)
            return answer

        return handler

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002  # aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What is raised around the application's own handling of errors."""
        self.log_exception("Error handling request", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        return RefusalAnswer(GatewayError("The gateway failed to handle this request."))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A broken body was told to whoever read it."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    @property
    def serving(self) -> asyncio.Task[None] | None:
        """What serves its requests, or waits for them; None when nothing does any more."""
        return self._task_handler

    def look(self, now: float, timeouts: Timeouts, transport: asyncio.Transport) -> None:
        """Ends what has taken too long. `transport` is the connection's, also when it is closing already."""
        if self.transport is None or transport.is_closing():
            if self._has_been_closing(now, timeouts.write_stall_seconds):
                transport.abort()
        elif self._is_over:
            if not self._request_in_progress and self._has_been_closing(now, _LINGER_SECONDS):
                self._closing_since = now
                self.force_close()
        elif not self._body.is_eof():
            self._look_for_slow_body(now, timeouts)
        elif self._waiter is not None and not self._waiter.done() and not self._messages:
            self._look_for_slow_head(now, timeouts)

    def _has_been_closing(self, now: float, seconds: float) -> bool:
        self._closing_since = self._closing_since or now
        return now - self._closing_since >= seconds

    def _look_for_slow_body(self, now: float, timeouts: Timeouts) -> None:
        """Each byte buys time, but never more than the whole limit: neither a pause nor a trickle gets far."""
        if self._reading_paused or not self._body_due:  # held back by ourselves, or just begun
            self._body_due = now + timeouts.body_seconds
            self._body_seen_bytes = self._body.total_bytes
            return
        seen_bytes = self._body.total_bytes
        bought_seconds = (seen_bytes - self._body_seen_bytes) / timeouts.body_min_bytes_per_second
        self._body_due = min(now + timeouts.body_seconds, self._body_due + bought_seconds)
        self._body_seen_bytes = seen_bytes
        if now >= self._body_due:
            self._break_body(TimeoutError(f"{timeouts.body_seconds:g} s"))

    def _look_for_slow_head(self, now: float, timeouts: Timeouts) -> None:
        idle_since = self._idle_since
        has_begun = self._head_since >= idle_since
        if self._request_count == 0:
            since = idle_since
        elif has_begun:
            since = self._head_since
        else:
            since = idle_since
            if now - since >= timeouts.head_seconds:
                has_begun = self._holds_part_of_head()
            if not has_begun:
                return
        if now - since < timeouts.head_seconds:
            return
        if has_begun:
            self._reject(RequestTooSlow(f"The request's head did not arrive within {timeouts.head_seconds:g} s."))
        else:
            self.force_close()

    def _holds_part_of_head(self) -> bool:
        """Whether some of a head came behind a request that was being served. What is asked here ends the parser's work
        if it has begun one; if it has not, nothing is changed."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001  # the parser's verdict on what it got
            return True


class ClientServer(web.Server):
    """All connections of one application's ports."""

    def __init__(self, plain: web.Server, timeouts: Timeouts, direct: Mapping[str, Serve]) -> None:
        super().__init__(
            plain.request_handler,
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,  # noqa: SLF001
            **plain._kwargs,  # noqa: SLF001
        )
        self.bad_requests = BadRequests()
        self.outbox = Outbox(self._loop)
        self.direct = direct
        self.timeouts = timeouts
        self._next_sweep = self._loop.call_later(timeouts.sweep_seconds, self._sweep)

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, loop=self._loop, **self._kwargs)

    def _sweep(self) -> None:
        self._next_sweep = self._loop.call_later(self.timeouts.sweep_seconds, self._sweep)
        now = self._loop.time()
        for connection, transport in list(self._connections.items()):
            if isinstance(connection, ClientConnection):
                connection.look(now, self.timeouts, transport)
        self.bad_requests.tell()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Requests have that long to end. The others are given up while their clients are still connected, so that it
        can be told who has left whom; aiohttp would close the connections first."""
        self._next_sweep.cancel()
        self.bad_requests.tell()
        serving = [task for each in self._connections if (task := _serving(each)) is not None]
        if serving:
            _, late = await asyncio.wait(serving, timeout=timeout)
            for task in late:
                task.cancel()
        await super().shutdown(_GIVEN_UP_SECONDS)


def _serving(connection: web.RequestHandler) -> asyncio.Task[None] | None:
    return connection.serving if isinstance(connection, ClientConnection) else None
