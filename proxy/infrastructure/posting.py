"""Posting to an upstream: the head written beforehand, and over aiohttp's connections and parsers directly.

`ClientSession.request` makes a request object, a response object, a timer and a task for each call. Here none is
needed: the address and most headers never change, and the body is at hand. That halves what a call costs (65 against
31 µs). What it stands on in aiohttp is public but for the connector's choice of protocol; `tests/infrastructure/
test_posting.py` says so when that moves. Sessions with another connector (those of other Semantic Kernel programs) are
asked the usual way.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientRequest,
    ClientSession,
    ConnectionTimeoutError,
    StreamReader,
    TCPConnector,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from proxy.infrastructure.chunked import ends_between_chunks, unwrapped

_LARGE_BODY_BYTES = 32 * 1024  # beyond that a copy costs more than a second buffer
_REMEMBERED_BYTES = 64 * 1024
_INFORMATIONAL = range(100, 200)
_SWITCHING = 101


class Reply(Protocol):
    """An answer whose head has come. Reading it to its end gives the connection back; closing ends it at once."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> StreamReader: ...

    @property
    def content_type(self) -> str: ...

    async def read(self) -> bytes:
        """The whole body; what was read is kept. A failure closes the connection."""
        ...

    def close(self) -> None: ...


class Post(Protocol):
    """Sends a body with these headers besides the standing ones. Raises aiohttp.ClientError, OSError, TimeoutError."""

    async def __call__(self, body: bytes, headers: Mapping[str, str], *, stream: bool = False) -> Reply: ...


def poster(session: ClientSession, url: URL, standing: Mapping[str, str], read_bufsize: int = 32 * 1024) -> Post:
    """How to post to one address, with headers that all calls carry."""
    if isinstance(session.connector, DirectConnector):
        return _DirectPost(session, session.connector, url, standing, read_bufsize)
    return _session_post(session, url, standing)


def _session_post(session: ClientSession, url: URL, standing: Mapping[str, str]) -> Post:
    async def post(body: bytes, headers: Mapping[str, str], *, stream: bool = False) -> Reply:  # noqa: ARG001
        return await session.post(url, data=body, headers={**standing, **headers}, allow_redirects=False)

    return post


class _Telling(ResponseHandler):
    """aiohttp's protocol of a client connection, for who does not want to be woken.

    `on_change` is called after it has taken in what happened to it. `on_piece` is given the contents of whole chunks
    past the parser, while that is between two chunks. `_given` tells whether it is: all that the parser was given since
    the answer's beginning, or since it last was; None if that was too much to remember.
    """

    on_change: Callable[[], None] | None = None
    on_piece: Callable[[bytes], None] | None = None
    _is_between = False
    _given: bytes | None = None
    _has_head = False

    def begin(self, *, stream: bool) -> None:
        """A request goes out."""
        self.on_change = self.on_piece = None
        self._is_between, self._has_head = False, True
        self._given = b"" if stream else None

    def data_received(self, data: bytes) -> None:
        if self._is_between:
            piece = unwrapped(data) if self.on_piece is not None else None
            if piece is not None and self.on_piece is not None:
                self.on_piece(piece)
                return
            self._is_between, self._has_head, self._given = False, False, b""
        if self._given is not None:
            self._given = self._given + data if len(self._given) < _REMEMBERED_BYTES else None
        super().data_received(data)
        if self.on_change is not None:
            self.on_change()
            self.look_between()

    def look_between(self) -> None:
        """Goes past the parser from here on, if that is wanted and may be done."""
        if self.on_piece is None or self._given is None:
            return
        body = self._given.partition(b"\r\n\r\n")[2] if self._has_head else self._given
        self._is_between = ends_between_chunks(body)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT002  # aiohttp's signature
        """Unless it was paused there is nothing to resume: aiohttp would run the parser over nothing at each read."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.on_change is not None:
            self.on_change()


class DirectConnector(TCPConnector):
    """A connector whose connections `poster` may use directly."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = functools.partial(_Telling, loop=self._loop)  # type: ignore[assignment]


class DirectReply:
    """The answer on one connection, which it gives back when the body has come to its end."""

    __slots__ = ("_body", "_connection", "_is_plainly_chunked", "_protocol", "content", "headers", "status")
    method: ClassVar[str] = "POST"  # aiohttp-retry asks for it

    def __init__(self, connection: Connection, message: RawResponseMessage, content: StreamReader) -> None:
        self.status = message.code
        self.headers = message.headers
        self._is_plainly_chunked = message.chunked and not message.compression
        self.content = content
        self._connection: Connection | None = connection
        self._protocol = connection.protocol
        self._body: bytes | None = None
        content.on_eof(self._ended)

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "application/octet-stream").partition(";")[0].strip().lower()

    async def read(self) -> bytes:
        if self._body is None:
            try:
                self._body = await self.content.read()
            except BaseException:
                self.close()
                raise
        return self._body

    def close(self) -> None:
        self.watch(None)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def watch(self, on_change: Callable[[], None] | None, on_piece: Callable[[bytes], None] | None = None) -> None:
        """Call this, synchronously, whenever something has come or the connection has ended. None: no more.

        Where nothing but whole chunks has come, `on_piece` is given what they hold instead, and reading would not.
        """
        if isinstance(self._protocol, _Telling):
            self._protocol.on_change = on_change
            self._protocol.on_piece = on_piece if self._is_plainly_chunked else None
            self._protocol.look_between()

    def keep_time(self, idle_seconds: float | None) -> None:
        """Raise SocketTimeoutError from reads when nothing comes for so long; None leaves it to who watches."""
        if self._protocol is not None and self._connection is not None:
            self._protocol.read_timeout = idle_seconds
            self._protocol.start_timeout()

    def _ended(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


class _DirectPost:
    def __init__(
        self, session: ClientSession, connector: DirectConnector, url: URL, standing: Mapping[str, str], bufsize: int
    ) -> None:
        self._session = session
        self._connector = connector
        self._url = url
        self._standing = standing
        self._bufsize = bufsize
        self._destination: ClientRequest | None = None
        self._head = b""

    async def __call__(self, body: bytes, headers: Mapping[str, str], *, stream: bool = False) -> Reply:
        destination = self._destination or self._prepared()
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head, header_lines(headers), len(body))
        try:
            connection = await self._connector.connect(destination, [], self._session.timeout)
        except TimeoutError as problem:
            raise ConnectionTimeoutError(f"Connection timeout to host {self._url.host}") from problem
        try:
            return await self._exchange(connection, head, body, stream=stream)
        except HttpProcessingError as problem:
            connection.close()
            raise ClientPayloadError(f"the answer is not HTTP: {problem.message}") from problem
        except BaseException:
            connection.close()
            raise

    async def _exchange(self, connection: Connection, head: bytes, body: bytes, *, stream: bool) -> Reply:
        protocol, transport = connection.protocol, connection.transport
        if not isinstance(protocol, _Telling) or transport is None:
            raise ClientConnectionError("the connection was lost before it could be used")
        protocol.set_response_params(
            read_until_eof=True, read_timeout=self._session.timeout.sock_read, read_bufsize=self._bufsize
        )
        protocol.begin(stream=stream)
        if len(body) < _LARGE_BODY_BYTES:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        while True:
            message, content = await protocol.read()
            if message.code not in _INFORMATIONAL or message.code == _SWITCHING:
                return DirectReply(connection, message, content)

    def _prepared(self) -> ClientRequest:
        """What never changes: where to connect to, and the head's first lines."""
        loop = asyncio.get_running_loop()
        self._destination = ClientRequest("POST", self._url, loop=loop, session=self._session)
        standing = CIMultiDict({"Host": self._destination.headers["Host"], "Accept": "*/*"})
        standing.update(self._standing)
        self._head = f"POST {self._url.raw_path_qs} HTTP/1.1\r\n".encode() + header_lines(standing)
        return self._destination


def header_lines(headers: Mapping[str, str]) -> bytes:
    """As they go over the wire. Raises ClientPayloadError for a value that would be more than one line."""
    if not headers:
        return b""
    for value in headers.values():
        if "\r" in value or "\n" in value or "\0" in value:
            raise ClientPayloadError("a header's value holds a line break")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return lines.encode(errors="surrogateescape")
