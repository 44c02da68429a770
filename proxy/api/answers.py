"""Answers to completions, whose heads are made in one go and leave together with what comes after them.

aiohttp prepares an answer as if it might yet be compressed, given cookies or have no body, in a dozen calls that a
completion never has use for, and sends a stream's head on its own; here a head is its own headers and five more. It
saves 5 µs a request, and a stream one call of the system. Whatever is not the plain case (HTTP/1.0, which keeps
connections in another way) is left to aiohttp.

aiohttp's serializer of heads and its answers' fields are private: tests/http/test_aiohttp_internals.py fails if they
move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeGuard

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_writer import _serialize_headers
from multidict import CIMultiDict

from proxy.api.app_keys import GATEWAY
from proxy.api.middlewares.request_id import complete_head

_STATUS_LINE: Final = "HTTP/1.1 200 OK"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class _Answer(web.StreamResponse):
    """200, to a request that is not HEAD."""

    def _is_plain(self, request: web.BaseRequest) -> TypeGuard[web.Request]:
        return request.version == HttpVersion11 and isinstance(request, web.Request) and not self.prepared

    def _complete_head(self, request: web.Request) -> None:
        """All but how long the body is."""
        headers = self._headers
        complete_head(request, self, request.app[GATEWAY])
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            headers[hdrs.CONNECTION] = "close"
        headers[hdrs.DATE] = rfc822_formatted_time()


class WholeAnswer(_Answer, web.Response):
    """One whose body is known: a web.Response that is made without looking at what it might have been given else."""

    _zlib_executor_size = 0
    _zlib_executor = None

    def __init__(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        self._state = {}
        self._status, self._reason = 200, "OK"
        self._headers = own = CIMultiDict(headers)
        own[hdrs.CONTENT_TYPE] = content_type
        self._body = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if not self._is_plain(request):
            return await super().prepare(request)
        self._complete_head(request)
        body = self._body if isinstance(self._body, bytes) else b""
        self._headers[hdrs.CONTENT_LENGTH] = str(len(body))
        self._eof_sent = True
        protocol = request.protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(_serialize_headers(_STATUS_LINE, self._headers) + body)
        if protocol.writing_paused:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._eof_sent:
            await super().write_eof(data)


class StreamedAnswer(_Answer):
    """One that comes in pieces. Its head leaves with the first of them, so prepare it when that is there."""

    _unsent = b""  # the head, and what completes the answer
    _is_ours = False  # its head and its chunks are written here
    is_whole = False  # what completes it was written

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if not self._is_plain(request):
            return await super().prepare(request)
        self._complete_head(request)
        self._headers[hdrs.TRANSFER_ENCODING] = "chunked"
        self._req = request
        self._payload_writer = request.writer
        self._unsent = _serialize_headers(_STATUS_LINE, self._headers)
        self._is_ours = True
        return self._payload_writer

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_ours:
            await self._send(_chunk(data))
        else:
            await super().write(data)

    async def write_last(self, data: bytes) -> None:
        """Writes what completes the answer: together with the end of the stream, if that comes in this turn of the
        event loop as it does nearly always, else without it."""
        self.is_whole = True
        if self._is_ours:
            self._unsent += _chunk(data)
            asyncio.get_running_loop().call_soon(self._let_go)
        else:
            await super().write(data)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._is_ours or self._eof_sent:
            await super().write_eof(data)
            return
        await self._send(_chunk(data) + _LAST_CHUNK)
        self._eof_sent = True
        self._req = self._payload_writer = None

    async def _send(self, data: bytes) -> None:
        """Raises ConnectionResetError when the client has gone. Waits while it does not read."""
        request = self._req
        if request is None:
            raise RuntimeError("the answer has ended")
        protocol = request.protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        data, self._unsent = self._unsent + data, b""
        transport.write(data)
        request.writer.output_size += len(data)  # or an error would be answered as if nothing had been
        if protocol.writing_paused:
            await request.writer.drain()

    def _let_go(self) -> None:
        request = self._req
        transport = None if request is None else request.transport
        if self._unsent and request is not None and transport is not None and not transport.is_closing():
            data, self._unsent = self._unsent, b""
            transport.write(data)
            request.writer.output_size += len(data)


def _chunk(data: bytes | bytearray | memoryview) -> bytes:
    """As chunked transfer coding has it (RFC 9112, 7.1), where a chunk of nothing would end the answer."""
    return b"%x\r\n%b\r\n" % (len(data), bytes(data)) if data else b""
