"""Posting to an upstream: the head written beforehand, and over aiohttp's connections and parsers directly.

`ClientSession.request` makes a request object, a response object, a timer and a task for each call. Here none is
needed: the address and most headers never change, and the body is at hand. That halves what a call costs (65 against
31 µs). What is called here is public in aiohttp, but the connections and the connector under it (`connections.py`,
`connector.py`) and the taking of whole bodies use what is not: tests/http/test_aiohttp_internals.py fails if that
moves. Sessions with another connector (those of other Semantic Kernel programs) are asked the usual way.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, Protocol

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

from proxy.application.whole_bodies import whole_body
from proxy.infrastructure.connections import UpstreamConnection
from proxy.infrastructure.connector import DirectConnector, KeptConnections

_INFORMATIONAL = range(100, 200)
_SWITCHING = 101
_FOREVER = math.inf
_TURN_BYTES = 1024 * 1024
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Reply(Protocol):
    """An answer whose head has come. When all of its content is read the connection goes back; closing ends it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> StreamReader: ...

    @property
    def content_type(self) -> str: ...

    def close(self) -> None: ...


class BodyTooLarge(Exception):  # it is too large
    """More came of an answer than anybody wants to hold."""


async def read_body(reply: Reply, most_bytes: int) -> bytes:
    """All of an answer's body. Raises BodyTooLarge, and what reading raises: then its connection is to be closed.

    Unpacking what an upstream has packed takes no longer than a mebibyte does, then others have a turn.
    """
    if isinstance(reply, DirectReply) and reply.is_over:
        body = whole_body(reply.content)
        if len(body) > most_bytes:
            raise BodyTooLarge
        return body
    pieces: list[bytes] = []
    length, pause_at = 0, _TURN_BYTES
    while piece := await reply.content.readany():
        pieces.append(piece)
        length += len(piece)
        if length > most_bytes:
            raise BodyTooLarge
        if length >= pause_at:
            pause_at = length + _TURN_BYTES
            await asyncio.sleep(0)
    return b"".join(pieces)


class Post(Protocol):
    """Sends a body with these headers besides the standing ones; the answer's head must come within `most_seconds`.

    Raises aiohttp.ClientError, OSError, TimeoutError.
    """

    async def __call__(
        self, body: bytes, headers: Mapping[str, str], *, most_seconds: float = _FOREVER, stream: bool = False
    ) -> Reply: ...


def poster(session: ClientSession, url: URL, standing: Mapping[str, str], read_bufsize: int = 32 * 1024) -> Post:
    """How to post to one address, with headers that all calls carry."""
    if isinstance(session.connector, DirectConnector):
        return _DirectPost(session, session.connector, url, standing, read_bufsize)
    return _session_post(session, url, standing)


def _session_post(session: ClientSession, url: URL, standing: Mapping[str, str]) -> Post:
    async def post(
        body: bytes,
        headers: Mapping[str, str],
        *,
        most_seconds: float = _FOREVER,
        stream: bool = False,  # noqa: ARG001
    ) -> Reply:
        async with asyncio.timeout(most_seconds):
            return await session.post(url, data=body, headers={**standing, **headers}, allow_redirects=False)

    return post


class DirectReply:
    """The answer on one connection, which it gives back when the body has come to its end."""

    __slots__ = ("_connection", "_exchange", "_kept", "_protocol", "content", "headers", "is_over", "status")
    method: ClassVar[str] = "POST"  # aiohttp-retry asks for it

    def __init__(
        self,
        kept: KeptConnections,
        connection: Connection,
        protocol: UpstreamConnection,
        message: RawResponseMessage,
        content: StreamReader,
    ) -> None:
        self.status = message.code
        self.headers = message.headers
        self.content = content
        self._kept = kept
        self._connection: Connection | None = connection
        self._protocol = protocol
        self._exchange = protocol.exchanges
        self.is_over = False  # all of the body has come
        content.on_eof(self._ended)

    @property
    def content_type(self) -> str:
        said = self.headers.get("Content-Type", "application/octet-stream")
        return without_controls(said.partition(";")[0].strip().lower())

    def close(self) -> None:
        self.watch(None)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def watch(
        self, on_change: Callable[[], None] | None, on_piece: Callable[[bytes, bytes | None], None] | None = None
    ) -> None:
        """Call this, synchronously, whenever something can be read or the connection has ended. None: no more.

        What need not be parsed is not there to be read, but given to `on_piece`, with the chunk that it was if it was
        one.
        """
        if self._protocol.exchanges == self._exchange:  # else another request has the connection by now
            self._protocol.on_change = on_change
            self._protocol.on_piece = on_piece

    def hold(self) -> None:
        """Nothing more is read from the connection until `go_on`, and the upstream waits."""
        if self._connection is not None:
            self._protocol.hold()

    def go_on(self) -> None:
        """What `hold` has begun is over, if it has."""
        if self._connection is not None:
            self._protocol.resume_reading()

    def keep_time(self, most_seconds: float, idle_seconds: float) -> None:
        """Have reading fail with SocketTimeoutError when this time is over, or nothing comes for so long."""
        if self._connection is not None:
            self._protocol.keep_time(most_seconds, idle_seconds)

    @property
    def is_out_of_time(self) -> bool:
        """Whether reading failed because all its time was over."""
        return self._protocol.is_out_of_time and self._protocol.exchanges == self._exchange

    def _ended(self) -> None:
        self.is_over = True
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = self._protocol.transport
        if transport is None or transport.get_write_buffer_size():  # answered before it has had all of the request
            connection.close()
        else:
            self._protocol.rest()
            self._kept.give(connection, self._protocol)


class _Address(NamedTuple):
    """What never changes: where to connect to, the head's first lines, and the connections that are there."""

    destination: ClientRequest
    first_lines: bytes
    kept: KeptConnections


class _DirectPost:
    def __init__(
        self, session: ClientSession, connector: DirectConnector, url: URL, standing: Mapping[str, str], bufsize: int
    ) -> None:
        self._session = session
        self._connector = connector
        self._url = url
        self._standing = standing
        self._bufsize = bufsize
        self._address: _Address | None = None

    async def __call__(
        self, body: bytes, headers: Mapping[str, str], *, most_seconds: float = _FOREVER, stream: bool = False
    ) -> Reply:
        destination, first_lines, kept = self._address or self._prepared()
        head = b"%b%bContent-Length: %d\r\n\r\n" % (first_lines, header_lines(headers), len(body))
        taken = kept.take()
        if taken is None:
            began = time.monotonic()
            taken = await self._connect(destination, most_seconds)
            most_seconds -= time.monotonic() - began
        connection, protocol = taken
        try:
            protocol.begin(stream=stream, most_seconds=most_seconds, read_bufsize=self._bufsize)
            protocol.send(head, body)
            while True:
                message, content = await protocol.read()
                if message.code not in _INFORMATIONAL or message.code == _SWITCHING:
                    break
            reply = DirectReply(kept, connection, protocol, message, content)
            if not reply.is_over:
                reply.keep_time(_FOREVER, self._session.timeout.sock_read or _FOREVER)
            return reply
        except HttpProcessingError as problem:
            connection.close()
            raise ClientPayloadError(f"the answer is not HTTP: {problem.message}") from problem
        except BaseException:
            connection.close()
            raise

    async def _connect(self, destination: ClientRequest, most_seconds: float) -> tuple[Connection, UpstreamConnection]:
        async with asyncio.timeout(most_seconds):
            try:
                connection = await self._connector.connect(destination, [], self._session.timeout)
            except TimeoutError as problem:
                raise ConnectionTimeoutError(f"Connection timeout to host {self._url.host}") from problem
        protocol = connection.protocol
        if not isinstance(protocol, UpstreamConnection):
            connection.close()
            raise ClientConnectionError("the connection was lost before it could be used")
        return connection, protocol

    def _prepared(self) -> _Address:
        destination = ClientRequest("POST", self._url, loop=asyncio.get_running_loop(), session=self._session)
        standing = CIMultiDict({"Host": destination.headers["Host"], "Accept": "*/*"})
        standing.update(self._standing)
        first_lines = f"POST {self._url.raw_path_qs} HTTP/1.1\r\n".encode() + header_lines(standing)
        self._address = _Address(destination, first_lines, self._connector.kept(destination.connection_key))
        return self._address


def without_controls(value: str) -> str:
    """A header's value as it can be sent on, without the control characters that some servers send (RFC 9110, 5.5)."""
    return value if value.isprintable() else _CONTROLS.sub("", value)


def header_lines(headers: Mapping[str, str]) -> bytes:
    """As they go over the wire. Raises ClientPayloadError for a value that would be more than one line."""
    if not headers:
        return b""
    for value in headers.values():
        if "\r" in value or "\n" in value or "\0" in value:
            raise ClientPayloadError("a header's value holds a line break")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return lines.encode(errors="surrogateescape")
