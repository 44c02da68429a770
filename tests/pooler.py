"""A pooler before PostgreSQL, as PgBouncer is one: for each transaction its clients get one of its few connections.

It is of the old kind that knows nothing of prepared statements. Clients must not send ahead of the answers.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_OUTSIDE = b"Z\x00\x00\x00\x05I"  # ready for a query, in no transaction
_TERMINATE, _FLUSH, _COPY_IN = b"X", b"H", b"G"
_ANSWERED = (b"Q", b"S", b"c", b"f", _FLUSH)  # a query, a sync, the end of a copy
_PREPARED = (b"T", b"n", b"E")  # what rows it will have, that it has none, or what is wrong with it
_NO_TRANSACTIONS = b"SFATAL\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0"


@dataclass(frozen=True)
class _Server:
    """One connection of the server, and what it said when it began."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytearray = field(default_factory=bytearray)

    async def message(self) -> bytes:
        head = await self.reader.readexactly(5)
        return head + await self.reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)


@dataclass
class Pooler:
    """`size` connections of the server, used in turn, so that no client has the same one twice in a row."""

    socket: str
    size: int
    has_transactions: bool
    idle: deque[_Server] = field(default_factory=deque)
    opened: int = 0
    waiting: asyncio.Condition = field(default_factory=asyncio.Condition)
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server: _Server | None = None
        try:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            startup = struct.pack("!I", length) + await reader.readexactly(length - 4)
            server = await self._taken(startup)
            writer.write(_with_another_key(server.greeting))
            await self._given_back(server)
            server = None
            while (kind := await reader.readexactly(1)) != _TERMINATE:
                server = server or await self._taken(startup)
                head = kind + await reader.readexactly(4)
                message = head + await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
                if not self.has_transactions and message[5:].startswith(b"BEGIN"):
                    writer.write(b"E" + struct.pack("!I", len(_NO_TRANSACTIONS) + 4) + _NO_TRANSACTIONS)
                    break
                server.writer.write(message)
                if kind in _ANSWERED and await self._answered(server, writer, kind):
                    await self._given_back(server)
                    server = None
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            if server is not None:
                self.opened -= 1
                await _closed(server.writer)

    async def _taken(self, startup: bytes) -> _Server:
        async with self.waiting:
            await self.waiting.wait_for(lambda: self.idle or self.opened < self.size)
            if self.opened >= self.size:
                return self.idle.popleft()
            self.opened += 1
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(startup)
        server = _Server(reader, writer)
        while not server.greeting.endswith(_OUTSIDE):
            server.greeting.extend(await server.message())
        return server

    async def _given_back(self, server: _Server) -> None:
        async with self.waiting:
            self.idle.append(server)
            self.waiting.notify()

    async def _answered(self, server: _Server, writer: asyncio.StreamWriter, kind: bytes) -> bool:
        """Whether the transaction is over. After a flush the server tells of the statement that it was to prepare."""
        while True:
            message = await server.message()
            writer.write(message)
            if message[:1] == b"Z":
                return message == _OUTSIDE
            if message[:1] == _COPY_IN or (kind == _FLUSH and message[:1] in _PREPARED):
                return False


def _with_another_key(greeting: bytearray) -> bytes:
    """By the key a client would cancel; a pooler has its own for each."""
    place = greeting.index(b"K\x00\x00\x00") + 5
    return bytes(greeting[:place] + b"\x00\x00\x00\x07" + greeting[place + 4 :])


@asynccontextmanager
async def pooled_url(url: str, directory: Path, size: int = 4, *, has_transactions: bool = True) -> AsyncIterator[str]:
    """The same database behind a pooler."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    pooler = Pooler(f"{host}/.s.PGSQL.5432", size, has_transactions)
    async with await asyncio.start_unix_server(pooler, directory / ".s.PGSQL.5432"):
        yield url.replace(host, str(directory))
    await asyncio.gather(*pooler.clients)
    for server in pooler.idle:
        await _closed(server.writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
