"""Relaying a stream to a client, and being honest about how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web

from proxy.api.answer_headers import answer_headers
from proxy.api.answers import StreamedAnswer
from proxy.api.openai.errors import error_event
from proxy.application.answer_stream import AnswerStream
from proxy.application.exchange import Exchange
from proxy.application.payloads import Capture
from proxy.application.upstream import Answer
from proxy.domain.errors import StreamBroken

_WRITE_BUFFER_BYTES = 16 * 1024

_Write = Callable[[bytes], Awaitable[None]]


async def relay(
    request: web.Request, exchange: Exchange, stream: AnswerStream, capture: Capture | None
) -> web.StreamResponse:
    """Writes the stream as it comes, at the speed of the slower side.

    A stream that broke ends with an error event and without `[DONE]`. A client that hangs up ends the upstream call.
    """
    try:
        response = StreamedAnswer(headers=stream_headers(stream.answer, exchange))
        exchange.answering(response.status)
        write: _Write = response.write
        write_last: _Write = response.write_last
        if capture is not None:
            capture.content_type = response.content_type
            write, write_last = capture.noting(write), capture.noting(write_last)
        try:
            if stream.is_all:
                await response.prepare(request)
                await write_last(await anext(stream))
            else:
                await begin(request, response)
                await _write_all(write, write_last, _ClientSink(request, capture), exchange, stream)
            await response.write_eof()
        except ConnectionError:
            exchange.abandoned()
        return response
    finally:
        await stream.aclose()


def stream_headers(answer: Answer, exchange: Exchange) -> dict[str, str]:
    """All headers of a stream."""
    return {
        **answer_headers(answer, exchange),
        "Content-Type": answer.content_type,
        "Cache-Control": "no-cache",
        "X-Accel-Buffering": "no",  # nginx would hold events back
    }


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Begins with the headers."""
    if request.transport is not None:  # a slow reader's unread bytes wait upstream, not here
        request.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
    await response.prepare(request)


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
