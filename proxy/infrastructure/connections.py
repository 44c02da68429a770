"""A connection to an upstream: aiohttp's, for who does not want to be woken; chunks are unwrapped past its parser."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import cast

from aiohttp import ClientConnectionError, ClientPayloadError, StreamReader
from aiohttp.client_proto import ResponseHandler

from proxy.application.outbox import GatheringTransport, Outbox
from proxy.infrastructure.chunked import LONGEST_SIZE_LINE, bytes_missing, is_size, may_become_size, unwrapped

_FIRST_FINAL_STATUS = 200
_HEAD_END = b"\n\r\n"
_LARGE_BODY_BYTES = 32 * 1024  # beyond that a copy costs more than a second buffer
_LOOKS = 16  # in an idle limit


class UpstreamConnection(ResponseHandler):
    """aiohttp's protocol of a client connection.

    `on_change` is called after it has taken in what happened to it, `on_piece` with what came of a body instead of
    giving that to its reader, and with the chunk that it was if it was one. `body` is the reader of a streamed answer
    from its head on, as long as it comes in plain chunks: those that are whole are unwrapped here, with one look at
    each. The parser gets the head, chunks that came torn, and the last one; for it the others have never been there.

    Time is kept with one timer that lives as long as the connection, more or less: it looks a few times in an idle
    limit, which is missed by as much, and no request or piece sets one of its own.
    """

    on_change: Callable[[], None] | None = None
    on_piece: Callable[[bytes, bytes | None], None] | None = None
    body: StreamReader | None = None
    exchanges = 0  # requests that have gone out over it
    _begins_stream = False
    _is_torn = False  # something of a chunk has come: then one of these
    _missing_bytes = 0  # of a torn chunk, whose beginning the parser has
    _held = b""  # a torn size line, which it has not
    _is_unwrapping = False
    is_out_of_time = False  # it failed at its end, not because nothing came
    _is_timed = False
    _is_resting = False  # between two requests
    _has_heard = False  # since the last look at the clock
    _end = _heard = _idle_seconds = 0.0
    _alarm: asyncio.TimerHandle | None = None
    _alarm_at = 0.0

    def __init__(self, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        super().__init__(loop)
        self._outbox = outbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(GatheringTransport(cast("asyncio.Transport", transport), self._outbox))

    def begin(self, *, stream: bool, most_seconds: float, read_bufsize: int) -> None:
        """A request goes out, and the answer's head must come within this time."""
        self.exchanges += 1
        self._is_resting = False
        if self._parser is None:  # one does for all of a connection's answers
            self.set_response_params(read_until_eof=True, read_bufsize=read_bufsize)
        self.keep_time(most_seconds, most_seconds)
        self.on_change = self.on_piece = self.body = None
        self._begins_stream = stream
        self._is_torn, self._missing_bytes, self._held = False, 0, b""

    def send(self, head: bytes, body: bytes) -> None:
        """Raises ClientConnectionError when it has been lost."""
        if self.transport is None:
            raise ClientConnectionError("the connection was lost before it could be used")
        if len(body) < _LARGE_BODY_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def keep_time(self, most_seconds: float, idle_seconds: float) -> None:
        """From now on: what is waited for fails with SocketTimeoutError, an answer's rest as well as its beginning."""
        now = self._loop.time()
        self._is_timed, self._heard, self._idle_seconds = True, now, idle_seconds
        self._end = now + most_seconds
        self._has_heard = False
        self._wake_at(min(self._end, now + idle_seconds / _LOOKS))

    def rest(self) -> None:
        """Nothing is waited for until the next request begins: what comes now is no answer to anything."""
        self._is_timed, self._is_resting = False, True

    def _wake_at(self, due: float) -> None:
        if self._alarm is not None:
            if self._alarm_at <= due:
                return
            self._alarm.cancel()
        if due == math.inf:
            return
        self._alarm_at = due
        self._alarm = self._loop.call_at(due, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._alarm = None
        if not self._is_timed:
            return
        now = self._loop.time()
        if self._has_heard or self._reading_paused:  # if paused, it is not the upstream that lets us wait
            self._heard, self._has_heard = now, False
        due = min(self._end, self._heard + self._idle_seconds)
        if now < due:
            self._wake_at(min(due, now + self._idle_seconds / _LOOKS))
            return
        self.is_out_of_time = now >= self._end
        self._on_read_timeout()
        if self.on_change is not None:
            self.on_change()

    def data_received(self, data: bytes) -> None:
        """A whole chunk for who watches, as nearly all is that comes on a slow stream, is handed on from here.

        Such pieces come after pauses, when nothing is in the processor's caches: what is touched on their way costs ten
        times what it does in a loop. So there is no call that is not needed, nor is the clock asked.
        """
        self._has_heard = True
        if self.on_piece is not None and self.body is not None and not self._is_torn:
            at = data.find(b"\r\n", 1, LONGEST_SIZE_LINE)
            contents = data[at + 2 : -2]
            if at > 0 and is_size(data[:at], len(contents)) and data.endswith(b"\r\n"):
                self.on_piece(contents, data)
                return
        if self.body is None or not data:
            if self._begins_stream and data:
                self._begins_stream = False
                self._take_head(data)
            else:
                self._parse(data)
            return
        if self._is_torn:
            data = self._completed(data)
            if not data:
                return
        contents, end = unwrapped(data)
        if contents:
            if self.on_piece is not None:
                self.on_piece(contents, None)
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
        if self._is_resting and self._buffer and self.transport is not None:
            self.transport.close()
        if self._exception is not None and self._payload is not None and self._payload.exception() is None:
            self._payload.set_exception(ClientPayloadError("the answer is not HTTP"), self._exception)
        if self.on_change is not None:
            self.on_change()

    def _completed(self, data: bytes) -> bytes:
        """What is left when a torn chunk has got what it lacks; together with what was held of the next one."""
        if self._held:
            data, self._held, self._is_torn = self._held + data, b"", False
            return data
        part, rest = data[: self._missing_bytes], data[self._missing_bytes :]
        self._missing_bytes -= len(part)
        self._is_torn = self._missing_bytes > 0
        self._parse(part)
        return b"" if self._exception is not None else rest

    def _feed(self, contents: bytes) -> None:
        if self.body is None:
            return
        self._is_unwrapping = True
        self.body.feed_data(contents)
        self._is_unwrapping = False
        if self.on_change is not None:
            self.on_change()

    def _tear(self, rest: bytes) -> None:
        if may_become_size(rest):
            self._held, self._is_torn = rest, True
            return
        self._missing_bytes = bytes_missing(rest)
        self._is_torn = self._missing_bytes > 0
        if not self._missing_bytes:  # the last chunk, or what only the parser understands
            self.body = None
        self._parse(rest)

    def pause_reading(self) -> None:
        """aiohttp would tell the parser, which has no part in this, and would stop at the next that it gets."""
        if self._is_unwrapping:
            self.hold()
        else:
            super().pause_reading()

    def hold(self) -> None:
        """Nothing more is read until `resume_reading`: who watches cannot take it."""
        if not self._reading_paused:
            self._reading_paused = True
            self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # aiohttp's signature
        """Unless it was paused there is nothing to resume: aiohttp would run the parser over nothing at each read."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._is_timed = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._held:
            self._parse(self._held)
        super().connection_lost(exc)
        if self.on_change is not None:
            self.on_change()
