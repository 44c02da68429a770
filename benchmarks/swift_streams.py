"""An upstream and clients for thousands of streams that cost little; chunks carry the moment when they were sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from benchmarks.swift import body_length
from benchmarks.upstreams import USAGE

_HEAD_END = b"\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_WHEEL = 100
_MARK = b'"content": "@'
_DONE = b"data: [DONE]"
_OK = b"HTTP/1.1 200"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(content: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    whole = {"id": "gen-1", "object": "chat.completion.chunk", "model": "any", "choices": [choice], **more}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def _chunk() -> bytes:
    return _framed(_event(f"@{time.monotonic():017.6f}"))


class _UpstreamStream(asyncio.Protocol):
    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._data = b""
        self.slot: set[_UpstreamStream] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(_HEAD_END)
        if end < 0 or len(self._data) < end + len(_HEAD_END) + body_length(self._data[:end]):
            return
        self._data = b""
        self.transport.write(_STREAM_HEAD + _chunk())
        self._wheel.add(self)

    def connection_lost(self, _problem: Exception | None) -> None:
        if self.slot is not None:
            self.slot.discard(self)

    def end(self) -> None:
        finish = _event("", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
        self.transport.write(_framed(finish) + _framed(_DONE + b"\n\n") + b"0\r\n\r\n")


class Wheel:
    """Sends each open stream a chunk a second for so many seconds, a hundredth of them each 10 ms; and then its end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = int(seconds)
        self._slots: list[set[_UpstreamStream]] = [set() for _ in range(_WHEEL)]
        self._left: dict[_UpstreamStream, int] = {}
        self._next = 0

    def add(self, stream: _UpstreamStream) -> None:
        stream.slot = self._slots[self._next - 1]  # its next turn comes in a second
        stream.slot.add(stream)
        self._left[stream] = self._seconds

    async def turn(self) -> None:
        began, turned = time.monotonic(), 0
        while True:
            while turned <= (time.monotonic() - began) * _WHEEL:
                slot = self._slots[self._next]
                self._next = (self._next + 1) % _WHEEL
                turned += 1
                self._send(slot)
            await asyncio.sleep(0.005)

    def _send(self, slot: set[_UpstreamStream]) -> None:
        for stream in list(slot):
            self._left[stream] -= 1
            if self._left[stream] <= 0:
                slot.discard(stream)
                del self._left[stream]
                stream.end()
            else:
                stream.transport.write(_chunk())


async def serve_streams(port: int, seconds: float) -> None:
    """Until it is cancelled."""
    wheel = Wheel(seconds)
    server = await asyncio.get_running_loop().create_server(
        partial(_UpstreamStream, wheel), "127.0.0.1", port, backlog=4096
    )
    async with server:
        await wheel.turn()


@dataclass(slots=True)
class StreamTally:
    """What the clients of streams saw. `delays` are of chunks, in seconds, with the moment at which they came."""

    begun: int = 0
    done: int = 0
    dropped: int = 0
    refused: int = 0
    chunks: int = 0
    delays: deque[tuple[float, float]] = field(default_factory=deque)


class StreamReader(asyncio.Protocol):
    """Reads one stream; `again` is called when it was refused."""

    def __init__(self, request: bytes, tally: StreamTally, again: Callable[[], None]) -> None:
        self._request = request
        self._tally = tally
        self._again = again
        self._head = b""
        self._is_open = self._is_done = self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self._is_open:
            self._head += data
            if _HEAD_END not in self._head:
                return
            if not self._head.startswith(_OK):
                self._tally.refused += 1
                self._is_refused = True
                self._transport.close()
                return
            self._is_open = True
            self._tally.begun += 1
            data = self._head.partition(_HEAD_END)[2]
        at = data.find(_MARK)
        while at >= 0:
            begin = at + len(_MARK)
            self._tally.chunks += 1
            self._tally.delays.append((now, now - float(data[begin : begin + 17])))
            at = data.find(_MARK, begin)
        if _DONE in data:
            self._is_done = True
            self._tally.done += 1
            self._transport.close()

    def connection_lost(self, _problem: Exception | None) -> None:
        if self._is_refused:
            self._again()
        elif not self._is_done:
            self._tally.dropped += 1
