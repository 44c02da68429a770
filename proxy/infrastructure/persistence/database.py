"""An open database: its engine, its tables bound to it, and its pool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiosqlite
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import SQLiteEngine

from proxy.infrastructure.persistence.engine import BUSY_TIMEOUT_SECONDS, describe, engine_for, sqlite_path
from proxy.infrastructure.persistence.file_lock import file_locked
from proxy.infrastructure.persistence.payload_table import RequestPayloadTable
from proxy.infrastructure.persistence.server import look_at
from proxy.infrastructure.persistence.tables import ModelPriceHistoryTable, ModelPricingTable, RequestLogTable

_logger = logging.getLogger(__name__)
_POOL_MIN_SIZE, _POOL_MAX_SIZE = 1, 5
_GOODBYE_SECONDS = 2.0
_MOST_IDLE = 2
_File = tuple[int, int]  # its device and its number there


class IdleConnections:
    """SQLite connections that wait for their next use: each is a thread, and opening one takes 2 ms of CPU.

    One is used again only while the path still leads to the file that it has open.
    """

    def __init__(self) -> None:
        self._idle: list[aiosqlite.Connection] = []
        self._files: dict[aiosqlite.Connection, _File | None] = {}
        self._is_closed = False

    async def take(self, path: Path) -> aiosqlite.Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if self._files[connection] == _file_at(path):
                return connection
            await self.drop(connection)
        return None

    def opened(self, connection: aiosqlite.Connection, path: Path) -> None:
        """It was opened just now."""
        self._files[connection] = _file_at(path)

    async def give_back(self, connection: aiosqlite.Connection) -> None:
        """Keeps it, or closes it if there are enough."""
        if self._is_closed or len(self._idle) >= _MOST_IDLE or connection.in_transaction:
            await self.drop(connection)
        else:
            self._idle.append(connection)

    async def drop(self, connection: aiosqlite.Connection) -> None:
        del self._files[connection]
        await connection.close()

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            await self.drop(self._idle.pop())


def _file_at(path: Path) -> _File | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class Database:
    """Two databases may be open in one process, so tables are subclasses bound to one engine, not Piccolo's global."""

    url: str
    engine: SQLiteEngine | PostgresEngine
    request_logs: type[RequestLogTable]
    model_pricing: type[ModelPricingTable]
    model_price_history: type[ModelPriceHistoryTable]
    request_payloads: type[RequestPayloadTable]
    idle: IdleConnections = field(default_factory=IdleConnections)

    @property
    def is_postgres(self) -> bool:
        return isinstance(self.engine, PostgresEngine)

    @property
    def description(self) -> str:
        """For people: no password."""
        return describe(self.url)

    async def ping(self, timeout_seconds: float) -> None:
        """Raises what the driver raises, or TimeoutError."""
        async with asyncio.timeout(timeout_seconds):
            if isinstance(self.engine, PostgresEngine):
                await look_at(self.engine)  # on a connection of its own: a pool may be full of waiting writers
            else:
                await self.engine._run_in_new_connection("SELECT 1")  # noqa: SLF001


def bind(url: str) -> Database:
    """The database at a URL, not connected yet. Raises InvalidValue for a URL of no known kind."""
    engine = engine_for(url)

    class RequestLogs(RequestLogTable, tablename="request_logs", db=engine):
        pass

    class ModelPrices(ModelPricingTable, tablename="model_pricing", db=engine):
        pass

    class PriceHistory(ModelPriceHistoryTable, tablename="model_price_history", db=engine):
        pass

    class RequestPayloads(RequestPayloadTable, tablename="request_payloads", db=engine):
        pass

    return Database(url, engine, RequestLogs, ModelPrices, PriceHistory, RequestPayloads)


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """The database, connected."""
    database = bind(url)
    await connect(database)
    try:
        yield database
    finally:
        await disconnect(database)


async def connect(database: Database) -> None:
    """Starts the connection pool; SQLite has none and gets write-ahead logging instead."""
    if isinstance(database.engine, PostgresEngine):
        await look_at(database.engine)
        await database.engine.start_connection_pool(min_size=_POOL_MIN_SIZE, max_size=_POOL_MAX_SIZE, reset=_as_it_is)
    else:
        path = sqlite_path(database.url)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _has_write_ahead_log(path):
            async with file_locked(path):  # two that change the journal's mode at once find the file locked
                await _prepare_sqlite(path)


async def _as_it_is(_connection: object) -> None:
    """A connection goes back to the pool as it is: asyncpg ends a transaction that was left open, and nothing that is
    done here outlasts one. asyncpg's own reset is four statements after each use, a quarter of what a gateway that
    nobody asks costs the server."""


async def disconnect(database: Database) -> None:
    """Closes the pool, or what SQLite has instead. A server that does not answer is left without its goodbye."""
    await database.idle.close()
    if isinstance(database.engine, PostgresEngine) and database.engine.pool is not None:
        pool, database.engine.pool = database.engine.pool, None
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await pool.close()


def _has_write_ahead_log(path: Path) -> bool:
    """Whether the file's header says so (https://www.sqlite.org/fileformat.html: bytes 18 and 19)."""
    try:
        with path.open("rb") as file:
            return file.read(20)[18:] == b"\x02\x02"
    except FileNotFoundError:
        return False


def _make_private(path: Path) -> None:
    """A new file is its owner's alone: there may be prompts in it. SQLite gives those beside it the same mode."""
    path.touch(mode=0o600)


async def _prepare_sqlite(path: Path) -> None:
    """The first PRAGMA has an effect on a new file only, and only before the second one."""
    _make_private(path)
    async with aiosqlite.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None) as connection:
        await connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        await connection.execute("PRAGMA journal_mode=WAL")
