"""Turning requests away before anything is done for them, and clients that do not read.

What a refusal costs decides what is left for the others: at five times the capacity, a refusal that costs a fifth of a
request leaves nothing. So it is written here, between aiohttp's parser and its handler: a request that is refused wakes
no task, meets no middleware, and leaves no row, only a count.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from proxy.api.direct import DIRECT
from proxy.api.openai.errors import error_object
from proxy.application.load import RETRY_AFTER_SECONDS, Load, Refusal
from proxy.domain.errors import Overloaded
from proxy.domain.rate_limits import Priority
from proxy.server.direct import Serve
from proxy.server.plain_requests import authorization_in, is_exactly, is_plain, mark_of
from proxy.server.protocol import ClientConnection, ClientServer, Timeouts

PriorityOf = Callable[[str | None], Priority]  # from a request's Authorization header, without asking anybody

_NEVER_SHED: Final = ("/health", "/metrics", "/admin")
_LINGER_SECONDS = 2.0
_HOLD_SECONDS = 0.015  # and up to as much again
_PATIENCE_SECONDS = 0.1
_CROWD = 8
_TOLD_AT_A_TIME = 50  # connections too many that may stay until their request has been refused
_USUAL: Final = Timeouts()
_WAITS_SECONDS = range(int(RETRY_AFTER_SECONDS), int(RETRY_AFTER_SECONDS) + 3)
_MESSAGES: Final = {
    Refusal.LATE: "The gateway is overloaded.",
    Refusal.IN_FLIGHT: "The gateway serves as many requests as it may.",
    Refusal.QUEUED: "Too many requests came at the same time.",
    Refusal.CONNECTIONS: "The gateway has as many connections as it may have.",
}


class Refusals:
    """Whole answers to requests that are turned away: 503 in OpenAI's form, a request id, and when to come back.

    The waits differ, lest all come back at once.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waits = itertools.cycle(_WAITS_SECONDS)
        self._keeping = {reason: _form(message, closes=False) for reason, message in _MESSAGES.items()}
        self._closing = {reason: _form(message, closes=True) for reason, message in _MESSAGES.items()}

    def answer(self, reason: Refusal, *, closes: bool) -> bytes:
        """With `closes` it says that the connection ends with it."""
        form = self._closing if closes else self._keeping
        return form[reason] % (next(self._waits), next(self._numbers))


def _form(message: str, *, closes: bool) -> bytes:
    """With places for the wait in seconds and for the request's number."""
    body = json.dumps(error_object(Overloaded(f"{message} Try again in a moment.", RETRY_AFTER_SECONDS)))
    lines = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Retry-After: %d",
        f"x-request-id: req-{secrets.token_hex(8)}%016x",
        "Server: llmgateway",
        *(("Connection: close",) if closes else ()),
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Gate:
    """What all connections of one port ask before they serve a request."""

    def __init__(
        self,
        load: Load,
        priority_of: PriorityOf,
        write_stall_seconds: float,
        has_priorities: Callable[[], bool] = lambda: True,
    ) -> None:
        self.load = load
        self.write_stall_seconds = write_stall_seconds
        self.refusals = Refusals()
        self._held: list[SheddingHandler] = []
        self._due: list[SheddingHandler] = []
        self._priority_of = priority_of
        self._has_priorities = has_priorities
        self._loop = asyncio.get_running_loop()

    def reason(self, message: RawRequestMessage) -> Refusal | None:
        """Why the request is to be turned away; None if it is not."""
        if message.path.startswith(_NEVER_SHED):
            return None
        return self.reason_of(lambda: message.headers.get("Authorization"))

    def reason_of(self, authorization: Callable[[], str | None]) -> Refusal | None:
        """The same for a request that may be turned away, with this header."""
        if not self._has_priorities():
            return self.load.refusal(Priority.NORMAL)
        if self.load.refusal(Priority.LOW) is None:
            return None
        return self.load.refusal(self._priority_of(authorization()))

    def let_in(self) -> None:
        """Count a request that is served."""
        self._note_turn()
        self.load.begun += 1

    def turn_away(self, reason: Refusal) -> None:
        """Count one that is not."""
        self._note_turn()
        self.load.turn_away(reason)

    def hold(self, connection: SheddingHandler) -> None:
        """Release it after a moment."""
        if not self._held and not self._due:
            self._loop.call_later(_HOLD_SECONDS, self._release)
        self._held.append(connection)

    def _release(self) -> None:
        released, self._due, self._held = self._due, self._held, []
        if self._due:
            self._loop.call_later(_HOLD_SECONDS, self._release)
        now = self._loop.time()
        for connection in released:
            connection.release(now)

    def _note_turn(self) -> None:
        if not self.load.begun and not self.load.turned_away:
            self._loop.call_soon(self._serve_turn)  # before what comes in this turn is served, but the first

    def _serve_turn(self) -> None:
        begun, was_limited = self.load.next_turn()
        if begun >= _CROWD or self.load.pace.is_on:
            self._loop.call_soon(self._end_turn, time.monotonic(), was_limited)

    def _end_turn(self, began: float, was_limited: bool) -> None:
        now, pace = time.monotonic(), self.load.pace
        if pace.is_on:
            pace.learn(now - began, was_limited=was_limited)
        else:  # a crowd is seen sooner here than by a look now and then
            pace.observe(now - began, now, is_crowd=True)


class SheddingHandler(ClientConnection):
    """One client's connection, with a look at each request before anything is done for it.

    A connection is kept after a refusal, unless some of the request is yet to come: setting one up costs more.
    A client that takes nothing off its connection for some time while there is more than the write buffer holds is cut
    off, which ends its request like any hang-up.
    """

    __slots__ = ("_gate", "_held_for", "_is_between", "_is_serving", "_plain_mark", "_refused_at", "_stall")

    def __init__(self, manager: ClientServer, gate: Gate, **more: Any) -> None:
        super().__init__(manager, **more)
        self._gate = gate
        self._stall: asyncio.TimerHandle | None = None
        self._held_for: Refusal | None = None
        self._refused_at = 0.0
        self._plain_mark = (0, 0)
        self._is_serving = False
        self._is_between = True  # surely: the parser has nothing of a request that has not come to its end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        load = self._gate.load
        load.connections += 1
        super().connection_made(transport)
        if load.connections > load.most_connections + _TOLD_AT_A_TIME:  # the database needs descriptors, too
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._manager is not None:  # aiohttp takes a second call for none
            self._gate.load.connections -= 1
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._is_serving:
            self._is_between = False
            super().data_received(data)
        elif self._held_for is None and not self._gate.load.may_refuse:
            super().data_received(data)
            if self._messages:
                self._note_end(data)
                self._let_in()
            else:
                self._is_between = False
        elif not (self._is_between and self._refuse_unparsed(data)):
            waiter, self._waiter = self._waiter, None  # so that what comes does not wake the handler
            super().data_received(data)
            self._waiter = waiter
            self._note_end(data)
            if self._held_for is None:
                self._decide()

    def _note_end(self, data: bytes) -> None:
        if self._is_between:
            self._is_between = len(self._messages) == 1 and is_exactly(data, self._messages[0][1])

    def _refuse_unparsed(self, data: bytes) -> bool:
        """Refuses what the data holds, if it is one whole request of the plainest kind: parsing is half of the cost."""
        if self._held_for is not None or self.transport is None:
            return False
        mark = mark_of(data)
        if mark != self._plain_mark:  # clients that ask again send the same
            if not is_plain(data):
                return False
            self._plain_mark = mark
        reason = self._gate.reason_of(lambda: authorization_in(data))
        if reason is None or reason is Refusal.CONNECTIONS:
            return False
        self._gate.turn_away(reason)
        self._tell(self.transport, reason)
        return True

    async def _handle_request(self, *arguments: Any) -> tuple[web.StreamResponse, bool]:
        try:
            return await super()._handle_request(*arguments)
        finally:
            self._is_serving = bool(self._messages)  # what came meanwhile is served, too

    def _let_in(self) -> None:
        self._is_serving = True
        self._gate.let_in()

    def release(self, now: float) -> None:
        """The refusal that was held back goes out, and what came meanwhile is looked at."""
        reason, self._held_for = self._held_for, None
        if self.transport is not None and reason is not None:
            self._write_refusal(self.transport, reason, now)
            if self._messages:
                self._decide()

    def _decide(self) -> None:
        """Whether what has come is refused, or the handler is woken for it."""
        self._refuse_waiting()
        waiter = self._waiter
        if self._messages and self._held_for is None:
            self._let_in()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _refuse_waiting(self) -> None:
        """Answers the requests at the head of the queue that are not to be served, up to one that is."""
        while self._messages and self.transport is not None and self._held_for is None:
            message, payload = self._messages[0]
            if not isinstance(message, RawRequestMessage) or (reason := self._gate.reason(message)) is None:
                return
            self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            self._refuse(self.transport, reason, payload, closes=message.should_close)

    def _refuse(self, transport: asyncio.Transport, reason: Refusal, payload: StreamReader, *, closes: bool) -> None:
        self._gate.turn_away(reason)
        is_whole = payload.is_eof() and not self._reading_paused
        if is_whole and not closes and reason is not Refusal.CONNECTIONS:
            self._tell(transport, reason)
            return
        transport.write(self._gate.refusals.answer(reason, closes=True))
        self._is_over = True
        self._messages.clear()
        if is_whole:
            self.force_close()
        else:  # closing at once would reset the connection, and the answer might not be read
            self.resume_reading(resume_parser=False)
            self._loop.call_later(_LINGER_SECONDS, self.force_close)

    def _tell(self, transport: asyncio.Transport, reason: Refusal) -> None:
        """At once, but for clients that ask again at once: they would take all the time there is."""
        now = self._loop.time()
        if now - self._refused_at < _PATIENCE_SECONDS:
            self._held_for = reason
            self._gate.hold(self)
        else:
            self._write_refusal(transport, reason, now)

    def _write_refusal(self, transport: asyncio.Transport, reason: Refusal, now: float) -> None:
        transport.write(self._gate.refusals.answer(reason, closes=False))
        self._refused_at = now
        self._next_keepalive_close_time = now + self._keepalive_timeout

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._watch(self._unsent_bytes())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _watch(self, unsent_bytes: int) -> None:
        self._stall = self._loop.call_later(self._gate.write_stall_seconds, self._look_for_stall, unsent_bytes)

    def _stop_watching(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look_for_stall(self, unsent_bytes: int) -> None:
        now_unsent = self._unsent_bytes()
        if now_unsent < unsent_bytes:
            self._watch(now_unsent)
        elif self.transport is not None:
            self.transport.abort()

    def _unsent_bytes(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()


class SheddingServer(ClientServer):
    """The server, with that protocol for its connections."""

    def __init__(self, plain: web.Server, timeouts: Timeouts, direct: Mapping[str, Serve], gate: Gate) -> None:
        super().__init__(plain, timeouts, direct)
        self._gate = gate

    def __call__(self) -> SheddingHandler:
        return SheddingHandler(self, self._gate, loop=self._loop, **self._kwargs)


class SheddingRunner(web.AppRunner):
    """aiohttp's runner of an application, with that server."""

    def __init__(self, app: web.Application, gate: Gate, timeouts: Timeouts = _USUAL, **more: Any) -> None:
        super().__init__(app, keepalive_timeout=timeouts.keepalive_seconds, **more)
        self._gate = gate
        self._timeouts = timeouts

    async def _make_server(self) -> web.Server:
        return SheddingServer(await super()._make_server(), self._timeouts, self.app.get(DIRECT, {}), self._gate)
