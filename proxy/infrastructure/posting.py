"""Posting to an upstream: the head written beforehand, and over aiohttp's connections and parsers directly.

`ClientSession.request` makes a request object, a response object, a timer and a task for each call. Here none is
needed: the address and most headers never change, and the body is at hand. That halves what a call costs (65 against
31 µs). What it stands on in aiohttp is public but for the connector's choice of protocol; `tests/infrastructure/
test_posting.py` says so when that moves. Sessions with another connector (those of other Semantic Kernel programs) are
asked the usual way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientRequest,
    ClientSession,
    ConnectionTimeoutError,
    StreamReader,
)
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from proxy.infrastructure.connections import DirectConnector, UpstreamConnection

_LARGE_BODY_BYTES = 32 * 1024  # beyond that a copy costs more than a second buffer
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


class DirectReply:
    """The answer on one connection, which it gives back when the body has come to its end."""

    __slots__ = ("_body", "_connection", "_exchange", "_protocol", "content", "headers", "status")
    method: ClassVar[str] = "POST"  # aiohttp-retry asks for it

    def __init__(
        self,
        connection: Connection,
        protocol: UpstreamConnection,
        message: RawResponseMessage,
        content: StreamReader,
    ) -> None:
        self.status = message.code
        self.headers = message.headers
        self.content = content
        self._connection: Connection | None = connection
        self._protocol = protocol
        self._exchange = protocol.exchanges
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
        """Call this, synchronously, whenever something can be read or the connection has ended. None: no more.

        What need not be parsed is not there to be read, but given to `on_piece`.
        """
        if self._protocol.exchanges == self._exchange:  # else another request has the connection by now
            self._protocol.on_change = on_change
            self._protocol.on_piece = on_piece

    def keep_time(self, idle_seconds: float | None) -> None:
        """Raise SocketTimeoutError from reads when nothing comes for so long; None leaves it to who watches."""
        if self._connection is not None:
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
        if not isinstance(protocol, UpstreamConnection) or transport is None:
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
                return DirectReply(connection, protocol, message, content)

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
