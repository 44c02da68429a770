"""Turning requests away before anything is done for them.

What a refusal costs decides what is left for the others: at five times the capacity, a refusal that costs a fifth of a
request leaves nothing. So it is written here, between aiohttp's parser and its handler: a request that is refused wakes
no task, meets no middleware, and leaves no row, only a count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage

from proxy.api.direct import DIRECT
from proxy.application.load import Refusal
from proxy.application.outbox import GatheringTransport
from proxy.server.direct import Serve
from proxy.server.gate import Gate
from proxy.server.plain_requests import authorization_in, head_of, is_exactly, is_plain
from proxy.server.protocol import ClientServer, Timeouts
from proxy.server.stalls import WatchedConnection

_NEVER_SHED: Final = ("/health", "/metrics", "/admin")
_LINGER_SECONDS = 2.0
_LAST_CALL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05
_CUT_SECONDS: Final = 0.5  # aiohttp waits twice
_TOLD_AT_A_TIME = 50  # connections too many that may stay until their request has been refused
_USUAL: Final = Timeouts()
_NOT_KEPT: Final = b""
_LONGEST_REMEMBERED_BYTES: Final = 2048  # of a head, by each connection


class SheddingHandler(WatchedConnection):
    """One client's connection, with a look at each request before anything is done for it.

    A request begins at once, or waits until the gate lets it begin or refuses it. One of the plainest kind waits
    unparsed. A connection is kept after a refusal, unless some of the request is yet to come: a new one costs more.
    """

    __slots__ = ("_gate", "_is_between", "_is_serving", "_is_waiting", "_plain_bytes", "_plain_head", "_unparsed")

    def __init__(self, manager: ClientServer, gate: Gate, **more: Any) -> None:
        super().__init__(manager, **more)
        self._gate = gate
        self._unparsed: bytes | None = None
        self._plain_head, self._plain_bytes = b"", -1  # of the last plain request that had to wait
        self._is_waiting = False
        self._is_serving = False
        self._is_between = True  # surely: the parser has nothing of a request that has not come to its end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        load = self._gate.load
        load.connections += 1
        super().connection_made(transport)
        if load.connections > load.most_connections + _TOLD_AT_A_TIME:  # the database needs descriptors, too
            load.refused[Refusal.CONNECTIONS] += 1
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._manager is not None:  # aiohttp takes a second call for none
            self._gate.load.connections -= 1
        self._is_waiting = False
        self._unparsed = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._is_serving:
            self._is_between = False
            super().data_received(data)
        elif self._is_waiting:
            self._wait_with_more(data)
        elif not self._gate.is_queueing and self._gate.is_open:  # the first, for it is asked with each refusal
            super().data_received(data)
            if self._messages:
                self._note_end(data)
                self._is_serving = True
                self._gate.let_in()
            else:
                self._is_between = False
        elif not (self._is_between and self._wait_unparsed(data)):
            self._parse_quietly(data)
            self._note_end(data)
            self._decide()

    def _note_end(self, data: bytes) -> None:
        if self._is_between:
            self._is_between = len(self._messages) == 1 and is_exactly(data, self._messages[0][1])

    def _wait_unparsed(self, data: bytes) -> bool:
        """Lets it wait, if the data is one whole request of the plainest kind: parsing is half of a refusal's cost."""
        gate = self._gate
        if self.transport is None or gate.load.connections > gate.load.most_connections:
            return False
        if len(data) != self._plain_bytes or not data.startswith(self._plain_head):  # who asks again sends the same
            if not is_plain(data):
                return False
            head = head_of(data)
            if len(head) <= _LONGEST_REMEMBERED_BYTES:
                self._plain_head, self._plain_bytes = head, len(data)
        self._is_waiting = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout  # nobody knows of it as yet
        self._unparsed = data
        if not gate.wait(self):
            self._unparsed = _NOT_KEPT
        return True

    def authorization(self) -> str | None:
        """That of the request that waits."""
        if self._unparsed is not None:
            return authorization_in(self._unparsed)
        message = self._messages[0][0]
        return message.headers.get(hdrs.AUTHORIZATION) if isinstance(message, RawRequestMessage) else None

    def _wait_with_more(self, data: bytes) -> None:
        """The rest of the request that waits, or one behind it, has come."""
        unparsed, self._unparsed = self._unparsed, None
        if unparsed == _NOT_KEPT:
            self._gate.load.refused[Refusal.QUEUED] += 1
            self._refuse_for_good(Refusal.QUEUED, is_whole=False)
            return
        self._is_between = False
        if unparsed is not None:
            self._parse_quietly(unparsed)
        self._parse_quietly(data)

    def _parse_quietly(self, data: bytes) -> None:
        """So that what comes does not wake the handler."""
        waiter, self._waiter = self._waiter, None
        super().data_received(data)
        self._waiter = waiter

    def _decide(self) -> None:
        """What becomes of the request at the head of the queue, if there is one."""
        if not self._messages or self.transport is None:
            return
        message, payload = self._messages[0]
        load = self._gate.load
        if not isinstance(message, RawRequestMessage) or message.path.startswith(_NEVER_SHED):
            self._serve()
        elif load.connections > load.most_connections:
            load.refused[Refusal.CONNECTIONS] += 1
            self._refuse_for_good(Refusal.CONNECTIONS, is_whole=payload.is_eof() and not self._reading_paused)
        else:
            self._is_waiting = True
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout  # it is not idle
            self._gate.wait(self)

    def _is_held(self) -> bool:
        """The handler may come round by itself: from a new connection's first step, or from a body it threw away."""
        return self._is_waiting

    def _served(self) -> None:
        self._is_serving = bool(self._messages)  # what came meanwhile is served, too

    def begin(self) -> bool:
        """The request that waits is served."""
        unparsed, self._unparsed = self._unparsed, None
        if not self._is_waiting or self.transport is None:
            return False
        self._is_waiting = False
        if unparsed is not None:
            self._is_serving = True
            super().data_received(unparsed)
        elif self._messages:
            self._serve()
        else:
            return False  # it came when nothing more was taken
        return True

    def _serve(self) -> None:
        self._is_serving = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def refuse(self, reason: Refusal) -> bool:
        """The request that waits is turned away, and what came behind it is looked at."""
        unparsed, self._unparsed = self._unparsed, None
        transport = self.transport
        if not self._is_waiting or transport is None:
            return False
        self._is_waiting = False
        if unparsed is not None:
            self._tell(transport, reason)
        elif self._messages:
            self._refuse_parsed(transport, reason)
            if not self._is_over:
                self._decide()
        else:
            return False
        return True

    def leave_if_idle(self, now: float) -> None:
        """Closes the connection if nothing has been asked on it for long enough."""
        is_idle = self._waiter is not None and not self._waiter.done() and not self._messages and not self._is_waiting
        if is_idle and not self._is_over and now - max(self._idle_since, self._head_since) >= _LAST_CALL_SECONDS:
            self.force_close()

    def leave(self) -> None:
        """The server's time is up, and who still waits is to be told so."""
        if self._is_waiting:
            self._gate.load.refused[Refusal.LATE] += 1
            self._refuse_for_good(Refusal.LATE, is_whole=True)

    def _refuse_parsed(self, transport: GatheringTransport, reason: Refusal) -> None:
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        is_whole = payload.is_eof() and not self._reading_paused
        if is_whole and isinstance(message, RawRequestMessage) and _takes_another(message):
            self._tell(transport, reason)
        else:
            self._refuse_for_good(reason, is_whole=is_whole)

    def _tell(self, transport: GatheringTransport, reason: Refusal) -> None:
        gate = self._gate
        if gate.is_closing:
            self._refuse_for_good(reason, is_whole=True)
            return
        transport.write_at_once(gate.refusals.answer(reason))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def _refuse_for_good(self, reason: Refusal, *, is_whole: bool) -> None:
        if self.transport is None:
            return
        self.transport.write(self._gate.refusals.answer(reason, closes=True))
        self._is_over = True
        self._is_waiting = False
        self._messages.clear()
        if is_whole:
            self.force_close()
        else:  # closing at once would reset the connection, and the answer might not be read
            self.resume_reading(resume_parser=False)
            self._loop.call_later(_LINGER_SECONDS, self.force_close)


def _takes_another(request: RawRequestMessage) -> bool:
    """Whether the connection can be kept. Behind a HEAD the refusal's body would be taken for the next answer."""
    return not request.should_close and request.method != hdrs.METH_HEAD


class SheddingServer(ClientServer):
    """The server, with that protocol for its connections."""

    def __init__(self, plain: web.Server, timeouts: Timeouts, direct: Mapping[str, Serve], gate: Gate) -> None:
        super().__init__(plain, timeouts, direct)
        self._gate = gate

    def __call__(self) -> SheddingHandler:
        return SheddingHandler(self, self._gate, loop=self._loop, **self._kwargs)

    async def last_call(self, grace_seconds: float) -> None:
        """Returns when all connections have ended, or when what runs has had its time.

        Whoever keeps a connection open learns by its next answer that it ends. One whose last answer could not say so,
        or that is idle, has a second for one more request: closing it at once may lose one that is on its way.
        """
        self._gate.is_closing = True
        began = self._loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds + _LAST_CALL_SECONDS):
                while self._connections:
                    await asyncio.sleep(_LOOK_SECONDS)
                    self._close_idle(since=began)

    def _close_idle(self, since: float) -> None:
        now = self._loop.time()
        if now - since >= _LAST_CALL_SECONDS:
            for connection in list(self._connections):
                if isinstance(connection, SheddingHandler):
                    connection.leave_if_idle(now)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """What has had its time by the last call gets no more."""
        await super().shutdown(_CUT_SECONDS if self._gate.is_closing else timeout)

    def pre_shutdown(self) -> None:
        for connection in list(self._connections):
            if isinstance(connection, SheddingHandler):
                connection.leave()
        super().pre_shutdown()


class SheddingRunner(web.AppRunner):
    """aiohttp's runner of an application, with that server."""

    def __init__(self, app: web.Application, gate: Gate, timeouts: Timeouts = _USUAL, **more: Any) -> None:
        super().__init__(app, keepalive_timeout=timeouts.keepalive_seconds, **more)
        self._gate = gate
        self._timeouts = timeouts

    def ask_to_leave(self) -> None:
        """From now on whoever is refused is told that the connection ends, as others are by their answers."""
        self._gate.is_closing = True

    async def last_call(self, grace_seconds: float) -> None:
        """As the server has it."""
        if isinstance(self.server, SheddingServer):
            await self.server.last_call(grace_seconds)

    async def _make_server(self) -> web.Server:
        return SheddingServer(await super()._make_server(), self._timeouts, self.app.get(DIRECT, {}), self._gate)
