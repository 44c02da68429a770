"""An upstream and clients that cost little: a handful of microseconds a request, so that they outrun any gateway.

They read and write HTTP/1.1 as the gateway and these two speak it, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from benchmarks.upstreams import USAGE

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_OK = 200
_LOOK_SECONDS = 0.01


def body_length(head: bytes) -> int:
    """The declared length of what follows a head; 0 if it declares none."""
    at = head.lower().find(_LENGTH)
    return 0 if at < 0 else int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])


class PlainUpstream(asyncio.Protocol):
    """Answers every request with the same completion, after `seconds`."""

    answer = b""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        end = self._data.find(_HEAD_END)
        if end < 0 or len(self._data) < end + len(_HEAD_END) + body_length(self._data[:end]):
            return
        self._data = b""
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._transport.write(self.answer)


def _completion() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello there. " * 20}, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "gen-1", "object": "chat.completion", "model": "any", "choices": [choice], "usage": USAGE}
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


PlainUpstream.answer = _completion()


def request_bytes(host: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole request for a completion."""
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + _HEAD_END + body


@dataclass(slots=True)
class Tally:
    """What became of requests: when each ended, after how many seconds, by status; 0 is a lost connection.

    `open` are those that were sent and have not ended, at the end those that were never answered.
    """

    ended: list[tuple[float, int, float]] = field(default_factory=list)
    open: int = 0

    def add(self, status: int, began: float) -> None:
        now = time.perf_counter()
        self.open -= 1
        self.ended.append((now, status, now - began))


class SwiftClient(asyncio.Protocol):
    """One connection. `done` is called with the client when its request has been answered."""

    __slots__ = ("_began", "_data", "_done", "_tally", "_transport", "is_lost", "retry_after_seconds", "status")

    def __init__(self, tally: Tally, done: Callable[[SwiftClient], None]) -> None:
        self._tally = tally
        self._done = done
        self._data = b""
        self._began: float | None = None
        self._transport: asyncio.Transport | None = None
        self.is_lost = False
        self.status = 0
        self.retry_after_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def send(self, request: bytes, began: float) -> None:
        assert self._transport is not None
        self._began = began
        self._tally.open += 1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        end = data.find(_HEAD_END)
        if end < 0 or len(data) < end + len(_HEAD_END) + body_length(data[:end]):
            self._data = data
            return
        self._data = b""
        self._end(int(data[9:12]))

    def connection_lost(self, _problem: Exception | None) -> None:
        self.is_lost = True
        if self._began is not None:
            self._end(0)

    def _end(self, status: int) -> None:
        began, self._began = self._began, None
        if began is not None:
            self.status = status
            self._tally.add(status, began)
            self._done(self)

    def close(self) -> None:
        self._began = None
        if self._transport is not None:
            self._transport.abort()


@dataclass
class Crowd:
    """Connections to one address, all sending the same request.

    `lags` says by how many seconds this process was late itself, looked at a hundred times a second: answers that it
    was late to read seem late by as much. `settling_seconds` are for connections to be accepted before it begins, and
    after it has ended for answers to come.
    """

    host: str
    port: int
    request: bytes
    settling_seconds: float = 1.0
    tally: Tally = field(default_factory=Tally)
    unsent: int = 0
    lags: list[float] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: set[SwiftClient] = field(default_factory=set)
    _connecting: int = 0
    _idle: deque[SwiftClient] = field(default_factory=deque)
    _due: deque[float] = field(default_factory=deque)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _running: bool = False
    _pause_seconds: float = 0.0

    async def closed(self, clients: int, seconds: float, *, pause_seconds: float = 0.0) -> None:
        """Each client sends its next request when it has its answer; after a refusal, when it has paused."""
        self._running, self._pause_seconds = True, pause_seconds
        crowd = await self._connect(clients, self._again)
        await asyncio.sleep(self.settling_seconds)
        self._begin()
        for client in crowd:
            client.send(self.request, time.perf_counter())
        await asyncio.sleep(seconds)
        await self._end()

    def _begin(self) -> None:
        self.begun.set()
        self._spawn(self._look_at_own_lag())

    async def _look_at_own_lag(self) -> None:
        while self._running:
            before = time.perf_counter()
            await asyncio.sleep(_LOOK_SECONDS)
            self.lags.append(time.perf_counter() - before - _LOOK_SECONDS)

    def _again(self, client: SwiftClient) -> None:
        if not self._running:
            return
        if client.is_lost:
            self._spawn(self._replace(client))
        elif client.status != _OK and self._pause_seconds:
            asyncio.get_running_loop().call_later(self._pause_seconds, self._send_now, client)
        else:
            self._send_now(client)

    def _send_now(self, client: SwiftClient) -> None:
        if self._running:
            client.send(self.request, time.perf_counter())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, lost: SwiftClient) -> None:
        self._clients.discard(lost)
        for client in await self._connect(1, self._again):
            self._send_now(client)

    async def open(self, per_second: float, seconds: float, *, connections: int, most_connections: int = 0) -> None:
        """So many requests each second, whatever becomes of them, over so many connections, or more where all wait.

        A request's time begins when it is due. `unsent` counts those that had to wait for one of `most_connections`.
        """
        self._running = True
        most_connections = max(connections, most_connections)
        self._idle.extend(await self._connect(connections, self._free))
        await asyncio.sleep(self.settling_seconds)
        self._begin()
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * per_second) + 1
            while sent < due:
                self._send_one(began + sent / per_second, most_connections)
                sent += 1
            await asyncio.sleep(0.002)
        await self._end()

    def _send_one(self, moment: float, most_connections: int) -> None:
        while self._idle:
            client = self._idle.popleft()
            if not client.is_lost:
                client.send(self.request, moment)
                return
            self._clients.discard(client)
        if len(self._clients) + self._connecting >= most_connections:
            self.unsent += 1
            return
        self._due.append(moment)
        self._connecting += 1
        self._spawn(self._connect_one_more())

    async def _connect_one_more(self) -> None:
        try:
            (client,) = await self._connect(1, self._free)
        finally:
            self._connecting -= 1
        self._free(client)

    def _free(self, client: SwiftClient) -> None:
        if client.is_lost:
            self._clients.discard(client)
        elif self._due:
            client.send(self.request, self._due.popleft())
        else:
            self._idle.append(client)

    async def _connect(self, count: int, done: Callable[[SwiftClient], None]) -> list[SwiftClient]:
        loop, made = asyncio.get_running_loop(), partial(SwiftClient, self.tally, done)
        new = [(await loop.create_connection(made, self.host, self.port))[1] for _ in range(count)]
        self._clients.update(new)
        return new

    async def _end(self) -> None:
        self._running = False
        self.unsent += len(self._due)
        self._due.clear()
        await asyncio.sleep(self.settling_seconds)
        for client in self._clients:
            client.close()
        self._clients.clear()
        self._idle.clear()
