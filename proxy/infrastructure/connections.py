"""Connections to upstreams: aiohttp's, for who does not want to be woken, and with chunks unwrapped past its parser."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aiohttp import ClientPayloadError, StreamReader, TCPConnector
from aiohttp.client_proto import ResponseHandler

from proxy.infrastructure.chunked import bytes_missing, may_become_size, unwrapped

_FIRST_FINAL_STATUS = 200
_HEAD_END = b"\n\r\n"


class UpstreamConnection(ResponseHandler):
    """aiohttp's protocol of a client connection.

    `on_change` is called after it has taken in what happened to it, `on_piece` with what came of a body instead of
    giving that to its reader. `body` is the reader of a streamed answer from its head on, as long as it comes in plain
    chunks: those that are whole are unwrapped here, with one look at each. The parser gets the head, chunks that came
    torn, and the last one; for it the others have never been there.
    """

    on_change: Callable[[], None] | None = None
    on_piece: Callable[[bytes], None] | None = None
    body: StreamReader | None = None
    exchanges = 0  # requests that have gone out over it
    _begins_stream = False
    _missing_bytes = 0  # of a torn chunk, whose beginning the parser has
    _held = b""  # a torn size line, which it has not
    _is_unwrapping = False

    def begin(self, *, stream: bool) -> None:
        """A request goes out."""
        self.exchanges += 1
        self.on_change = self.on_piece = self.body = None
        self._begins_stream = stream
        self._missing_bytes, self._held = 0, b""

    def data_received(self, data: bytes) -> None:
        if self.body is None or not data:
            if self._begins_stream and data:
                self._begins_stream = False
                self._take_head(data)
            else:
                self._parse(data)
            return
        if self._missing_bytes or self._held:
            data = self._completed(data)
            if not data:
                return
        contents, end = unwrapped(data)
        if contents:
            if self.on_piece is not None:
                self.on_piece(contents)
            else:
                self._feed(contents)
        if end < len(data):
            self._tear(data[end:])

    def _take_head(self, data: bytes) -> None:
        """An answer's first bytes: what follows the head need not be parsed if it comes in chunks."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        if end < len(_HEAD_END) or data.find(b"\n\n", 0, end) >= 0:  # the parser would see an end in that, too
            self._parse(data)
            return
        self._parse(data[:end])
        if self._exception is not None or not self._buffer:
            return
        message, reader = self._buffer[-1][0]
        if message.chunked and not message.compression and message.code >= _FIRST_FINAL_STATUS:
            reader.begin_http_chunk_receiving()  # else it would refuse what comes from the parser later
            self.body = reader
        if end < len(data):
            self.data_received(data[end:])

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        if self._exception is not None and self._payload is not None and self._payload.exception() is None:
            self._payload.set_exception(ClientPayloadError("the answer is not HTTP"), self._exception)
        if self.on_change is not None:
            self.on_change()

    def _completed(self, data: bytes) -> bytes:
        """What is left when a torn chunk has got what it lacks; together with what was held of the next one."""
        if self._held:
            data, self._held = self._held + data, b""
            return data
        part, rest = data[: self._missing_bytes], data[self._missing_bytes :]
        self._missing_bytes -= len(part)
        self._parse(part)
        return b"" if self._exception is not None else rest

    def _feed(self, contents: bytes) -> None:
        if self.body is None:
            return
        self._reschedule_timeout()
        self._is_unwrapping = True
        self.body.feed_data(contents)
        self._is_unwrapping = False
        if self.on_change is not None:
            self.on_change()

    def _tear(self, rest: bytes) -> None:
        if may_become_size(rest):
            self._held = rest
            return
        self._missing_bytes = bytes_missing(rest)
        if not self._missing_bytes:  # the last chunk, or what only the parser understands
            self.body = None
        self._parse(rest)

    def pause_reading(self) -> None:
        """aiohttp would tell the parser, which has no part in this, and would stop at the next that it gets."""
        if not self._is_unwrapping:
            super().pause_reading()
            return
        self._reading_paused = True
        self._pause_transport_reading()
        self._drop_timeout()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # aiohttp's signature
        """Unless it was paused there is nothing to resume: aiohttp would run the parser over nothing at each read."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._held:
            self._parse(self._held)
        super().connection_lost(exc)
        if self.on_change is not None:
            self.on_change()


class DirectConnector(TCPConnector):
    """A connector whose connections `poster` may use directly."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(UpstreamConnection, loop=self._loop)  # type: ignore[assignment]
