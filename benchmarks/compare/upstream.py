"""An upstream that costs next to nothing: prepared answers over a bare asyncio protocol.

python -m benchmarks.compare.upstream prints its URL. GET /answered tells how many chat completions it has answered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks.compare.answers import MODEL, PACE_SECONDS, is_to_be_paced, plain_answer, stream_events

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_JSON_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"
_MODELS = b'{"object":"list","data":[{"id":"%s","object":"model"}]}' % MODEL.encode()
_FIRST_ID = b"chatcmpl-%012d" % 0


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Script:
    """The prepared answers, told apart by their ids, and how many were given."""

    answered: int = 0
    plain: bytes = plain_answer(0)
    chunks: tuple[bytes, ...] = tuple(_chunk(event) for event in stream_events(0))
    burst: bytes = b"".join((_STREAM_HEAD, *chunks, _END))

    def next_id(self) -> bytes:
        self.answered += 1
        return b"chatcmpl-%012d" % self.answered


class Answering(asyncio.Protocol):
    """One connection. Requests must tell their length and wait for one another, as those of pools do."""

    def __init__(self, script: Script, loop: asyncio.AbstractEventLoop) -> None:
        self._script, self._loop = script, loop
        self._received, self._expected = bytearray(), 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = _LENGTH.search(self._received, 0, head + 2)
            self._expected = head + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= self._expected:
            request, self._received, self._expected = bytes(self._received), bytearray(), 0
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        assert self._transport is not None
        target = request[: request.find(b"\r\n")].split(b" ")[1]
        script = self._script
        if target.endswith(b"/chat/completions"):
            if not _LENGTH.search(request):
                self._write_json(b"{}", b"411 Length Required")
            elif not _STREAM.search(request):
                self._write_json(script.plain.replace(_FIRST_ID, script.next_id()))
            elif is_to_be_paced(request):
                chunks, mine = iter(script.chunks), script.next_id()
                self._transport.write(_STREAM_HEAD)
                self._pace(chunks, mine, self._loop.time())
            else:
                self._transport.write(script.burst.replace(_FIRST_ID, script.next_id()))
        elif target.endswith(b"/models"):
            self._write_json(_MODELS)
        elif target == b"/answered":
            self._write_json(b"%d" % script.answered)
        else:
            self._write_json(b"{}", b"404 Not Found")

    def _write_json(self, body: bytes, status: bytes = b"200 OK") -> None:
        assert self._transport is not None
        self._transport.write(_JSON_HEAD % (status, len(body)) + body)

    def _pace(self, chunks: Iterator[bytes], mine: bytes, due: float) -> None:
        if self._transport is None:
            return
        chunk = next(chunks, None)
        if chunk is None:
            self._transport.write(_END)
            return
        self._transport.write(chunk.replace(_FIRST_ID, mine))
        due += PACE_SECONDS
        self._loop.call_at(due, self._pace, chunks, mine, due)


async def serve() -> None:
    loop, script = asyncio.get_running_loop(), Script()
    server = await loop.create_server(lambda: Answering(script, loop), "127.0.0.1", 0, backlog=1024)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
