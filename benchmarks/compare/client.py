"""Clients that keep connections alive: many that send as fast as they are answered, or one beside a direct one."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from benchmarks.compare.answers import Kind, is_right, request_body

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_PATIENCE_SECONDS = 60.0  # for the last answers
_MOST_LOST = 1000


@dataclass(frozen=True)
class Address:
    """Where requests go, and with which headers."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def endpoint(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    def request(self, kind: Kind) -> bytes:
        """As bytes on the wire."""
        parts, body = urlsplit(self.url), request_body(kind)
        headers = {"Host": parts.netloc, "Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"POST {parts.path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**headers, **self.headers}.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Answer:
    """One HTTP answer, as it comes in."""

    def __init__(self) -> None:
        self._raw, self._body_at, self._length, self._chunked = bytearray(), 0, 0, False

    def feed(self, data: bytes) -> bool:
        """Whether it is whole."""
        raw = self._raw
        raw += data
        if not self._body_at:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(raw, 0, end + 2)
            self._length, self._body_at = int(length[1]) if length else 0, end + 4
            self._chunked = length is None and _CHUNKED.search(raw, 0, end + 2) is not None
        return raw.endswith(_LAST_CHUNK) if self._chunked else len(raw) >= self._body_at + self._length

    @property
    def status(self) -> int:
        return int(self._raw[9:12] or 0)

    @property
    def closes(self) -> bool:
        return _CLOSES.search(self._raw, 0, self._body_at) is not None

    def body(self) -> bytes:
        if not self._chunked:
            return bytes(self._raw[self._body_at :])
        parts, at = list[bytes](), self._body_at
        while True:
            size_end = self._raw.index(b"\r\n", at)
            size = int(self._raw[at:size_end].split(b";")[0], 16)
            if size == 0:
                return b"".join(parts)
            parts.append(bytes(self._raw[size_end + 2 : size_end + 2 + size]))
            at = size_end + 4 + size

    def is_right(self, kind: Kind) -> bool:
        return is_right(kind, self.status, self.body())

    def __str__(self) -> str:
        return bytes(self._raw[:1000]).decode(errors="replace")


@dataclass
class Outcome:
    """What became of the requests: right answers, others with an example, and how long the right ones took."""

    wrong: int = 0
    example: str = ""
    seconds: float = 0.0
    took_seconds: list[float] = field(default_factory=list)
    first_byte_seconds: list[float] = field(default_factory=list)

    def complain(self, about: str) -> None:
        self.wrong += 1
        self.example = self.example or about


class Crowd:
    """So many connections, each sending its next request when it has its answer, for a time or a number of requests."""

    def __init__(self, address: Address, kind: Kind, seconds: float, requests: int) -> None:
        self.kind, self.outcome = kind, Outcome()
        self.request = address.request(kind)
        self._endpoint = address.endpoint
        self._ends, self._left = time.perf_counter() + seconds, requests
        self._open, self._closed = 0, asyncio.get_running_loop().create_future()
        self._clients: deque[Client] = deque()

    def takes_another(self) -> bool:
        """Whether one more request should be sent; if so, it is counted."""
        if self._left <= 0 or time.perf_counter() >= self._ends:
            return False
        self._left -= 1
        return True

    async def run(self, connections: int) -> Outcome:
        began = time.perf_counter()
        for _ in range(connections):
            self._open += 1
            await self._connect()
        try:
            async with asyncio.timeout_at(self._ends - began + asyncio.get_running_loop().time() + _PATIENCE_SECONDS):
                await self._closed
        except TimeoutError:
            self.outcome.complain(f"no answer within {_PATIENCE_SECONDS:.0f} s after the end")
            for client in self._clients:
                client.abandon()
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: Client(self), *self._endpoint)
        except OSError as error:
            self.outcome.complain(repr(error))
            self._count_closed()

    def made(self, client: Client) -> None:
        """It is connected. It may be lost before whoever connects it is told."""
        self._clients.append(client)

    def lost(self, client: Client, *, was_waiting: bool) -> None:
        """A connection has ended; another one takes its place while there is something left to send."""
        self._clients.remove(client)
        if was_waiting:
            self.outcome.complain("the connection was lost")
        if self._left > 0 and time.perf_counter() < self._ends and self.outcome.wrong < _MOST_LOST:
            client.reconnecting = asyncio.ensure_future(self._connect())
        else:
            self._count_closed()

    def _count_closed(self) -> None:
        self._open -= 1
        if self._open == 0 and not self._closed.done():
            self._closed.set_result(None)


class Client(asyncio.Protocol):
    """One connection of a crowd."""

    reconnecting: asyncio.Future[None] | None = None

    def __init__(self, crowd: Crowd) -> None:
        self._crowd, self._answer = crowd, Answer()
        self._sent, self._first_byte, self._is_waiting = 0.0, 0.0, False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._crowd.made(self)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if not self._crowd.takes_another():
            self._transport.close()
            return
        self._answer, self._first_byte, self._is_waiting = Answer(), 0.0, True
        self._sent = time.perf_counter()
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        self._first_byte = self._first_byte or time.perf_counter()
        if not self._answer.feed(data):
            return
        answer, outcome, self._is_waiting = self._answer, self._crowd.outcome, False
        if answer.is_right(self._crowd.kind):
            outcome.took_seconds.append(time.perf_counter() - self._sent)
            outcome.first_byte_seconds.append(self._first_byte - self._sent)
        else:
            outcome.complain(str(answer))
        if answer.closes:
            self.abandon()
        else:
            self._send()

    def abandon(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._crowd.lost(self, was_waiting=self._is_waiting)


class Single:
    """One connection that waits for each answer, without an event loop in between."""

    def __init__(self, address: Address, kind: Kind) -> None:
        self._kind, self._request, self._endpoint = kind, address.request(kind), address.endpoint
        self.outcome = Outcome()
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(self._endpoint, timeout=_PATIENCE_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def ask(self) -> None:
        """One request, answered and counted. Raises OSError without a connection."""
        answer, began = Answer(), time.perf_counter()
        self._socket.sendall(self._request)
        while data := self._socket.recv(65536):
            if answer.feed(data):
                break
        took = time.perf_counter() - began
        if data and answer.is_right(self._kind):
            self.outcome.took_seconds.append(took)
        else:
            self.outcome.complain(str(answer))
        if not data or answer.closes:
            self._socket.close()
            self._socket = self._connect()

    def __enter__(self) -> Single:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
