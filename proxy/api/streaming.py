"""Relaying a stream to a client, and being honest about how it ended."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import HttpVersion11, web

from proxy.api.answer_headers import answer_headers
from proxy.api.answers import StreamedAnswer
from proxy.api.app_keys import GATEWAY
from proxy.api.openai.errors import error_event
from proxy.application.answer_stream import AnswerStream
from proxy.application.exchange import Exchange
from proxy.application.payloads import Capture
from proxy.application.upstream import Answer
from proxy.domain.errors import NotServing, StreamBroken

# Events are UTF-8 whatever is said, but not all clients know: Python's requests takes text of no charset for Latin-1.
_EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
_WRITE_BUFFER_BYTES = 16 * 1024
_STOPPED: Final = NotServing("The gateway stopped before the answer had come to its end.", 1)
_CLOSES_WITH_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

_Write = Callable[[bytes], Awaitable[None]]


async def relay(
    request: web.Request, exchange: Exchange, stream: AnswerStream, capture: Capture | None
) -> web.StreamResponse:
    """Writes the stream as it comes, at the speed of the slower side.

    A stream that broke, or that the gateway cuts because it stops, ends with an error event and without `[DONE]`. A
    client that hangs up ends the upstream call.
    """
    cohort = request.app[GATEWAY].load.cohort
    try:
        response = StreamedAnswer(headers=stream_headers(stream.answer, exchange))
        exchange.answering(response.status)
        write: _Write = response.write
        write_last: _Write = response.write_last
        if capture is not None:
            capture.content_type = response.content_type
            write, write_last = capture.noting(write), capture.noting(write_last)
        try:
            if cohort.has_several:
                await cohort.on_its_way_back()
            if stream.is_all:
                whole = await anext(stream)
                await response.prepare(request)
                await write_last(whole)
            else:
                await begin(request, response)
                await _write_all(write, write_last, _ClientSink(request, capture), exchange, stream)
            await response.write_eof()
        except ConnectionError:
            exchange.abandoned()
        except asyncio.CancelledError:
            exchange.abandoned()
            exchange.settle()
            await break_off(request, write if response.prepared and not response.is_whole else None)
            raise
        return response
    finally:
        await stream.aclose()


def stream_headers(answer: Answer, exchange: Exchange) -> dict[str, str]:
    """All headers of a stream."""
    return {
        **answer_headers(answer, exchange),
        "Content-Type": _EVENT_STREAM,
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",  # nginx would hold events back
    }


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Begins with the headers."""
    if request.transport is not None:  # a slow reader's unread bytes wait upstream, not here
        request.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
    await response.prepare(request)


async def break_off(request: web.Request, write: _Write | None) -> None:
    """Ends a stream whose request was cancelled: its client must not take what it got for all there is.

    `write` is None when nothing is to be added. If the client has gone, nobody is told. An answer without chunks ends
    with its connection: if the client has not taken all of it, and may not be given the rest, that ends with a reset.
    """
    transport = request.transport
    if transport is None:
        return
    if request.version < HttpVersion11 and transport.get_write_buffer_size():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSES_WITH_RESET)
    if write is not None:
        with suppress(ConnectionError):
            await write(error_event(_STOPPED))


class _ClientSink:
    """The client's connection, once the head is out: each piece goes to the transport in the framing of the answer.

    `StreamResponse.write` would do the same, but it can only be awaited.
    """

    def __init__(self, request: web.Request, capture: Capture | None) -> None:
        self._protocol = request.protocol
        self._writer = request.writer
        self._is_chunked = request.version >= HttpVersion11
        self._capture = capture

    @property
    def is_full(self) -> bool:
        return self._protocol.writing_paused

    def write(self, data: bytes, chunk: bytes | None = None) -> bool:
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if self._is_chunked:
            transport.write(chunk or b"%x\r\n%b\r\n" % (len(data), data))
        else:
            transport.write(data)
        if self._capture is not None:
            self._capture.add(data)
        return not self._protocol.writing_paused

    async def drained(self) -> None:
        if self._protocol.writing_paused:
            await self._writer.drain()


async def _write_all(
    write: _Write, write_last: _Write, sink: _ClientSink, exchange: Exchange, stream: AnswerStream
) -> None:
    async def pass_on(chunk: bytes) -> None:
        await (write if exchange.booked is None else write_last)(chunk)

    try:
        await pass_on(await anext(stream))
        await stream.pump(sink)
        async for chunk in stream:
            await pass_on(chunk)
    except StreamBroken as error:
        exchange.failed(error)
        exchange.settle()
        if not error.told:
            await write(error_event(error))
