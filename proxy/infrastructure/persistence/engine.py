"""From a database URL to a Piccolo engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from piccolo.engine.postgres import PostgresEngine, PostgresTransaction
from piccolo.engine.sqlite import SQLiteEngine, SQLiteTransaction, TransactionType

from proxy.domain.errors import InvalidValue
from proxy.infrastructure.persistence.errors import ends_its_connection
from proxy.infrastructure.persistence.pooled import hang_up, pooled

logging.getLogger("aiosqlite").setLevel(logging.INFO)  # it would log what is written, whatever it is
DEFAULT_DATA_DIR = ".llmgateway"
DATABASE_FILE = "llmgateway.db"
BUSY_TIMEOUT_SECONDS = 30.0
_SQLITE_PREFIX = "sqlite:///"
_POSTGRES_PREFIXES = ("postgres://", "postgresql://")
_SERVER_SETTINGS = {"timezone": "UTC"}  # of each session on PostgreSQL, whatever the database or the role has


class _PostgresTransaction(PostgresTransaction):
    """Piccolo's that cannot begin or end keeps its connection, and stays its task's current one.

    All that the task asks for later would be asked on that connection.
    """

    __slots__ = ()

    async def begin(self) -> None:
        try:
            await super().begin()  # type: ignore[no-untyped-call]
        except BaseException:
            await self._hang_up()
            raise

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._parent is None and exception is not None and ends_its_connection(exception):
            hang_up(self.connection)
            self._rolled_back = True  # by that
        try:
            return await super().__aexit__(exception_type, exception, traceback)
        finally:
            if self._parent is None and self.engine.current_transaction.get() is self:  # it has not come to its end
                self.engine.current_transaction.reset(self.context)
                await self._hang_up()

    async def _hang_up(self) -> None:
        hang_up(self.connection)
        if self.engine.pool is not None:
            await self.engine.pool.release(self.connection)


class _PostgresEngine(PostgresEngine):
    """Piccolo's engine connects when it is made, blocking, only to warn about old servers; this one does not.

    Its transactions leave nothing behind when their connection is lost, and who is cancelled does not wait until the
    server has given up what it was asked.
    """

    async def check_version(self) -> None:
        pass

    async def _run_in_pool(self, query: str, args: Sequence[Any] | None = None) -> Any:
        async with pooled(self, None) as connection:
            return await connection.fetch(query, *(args or ()))

    def transaction(self, allow_nested: bool = True) -> PostgresTransaction:  # noqa: FBT002  # as Piccolo calls it
        return _PostgresTransaction(self, allow_nested)


class _SqliteTransaction(SQLiteTransaction):
    """Piccolo's closes its connection only if all goes well; the thread of an open one keeps the process from ending.

    On a full disk SQLite rolls back by itself, and then refuses to do so again.
    """

    __slots__ = ()

    async def begin(self) -> None:
        try:
            await super().begin()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.connection.close()
            raise

    async def rollback(self) -> None:
        if self.connection.in_transaction:
            await super().rollback()  # type: ignore[no-untyped-call]

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            return await super().__aexit__(exception_type, exception, traceback)
        finally:
            if self._parent is None and self.engine.current_transaction.get() is self:  # it has not come to its end
                self.engine.current_transaction.reset(self.context)
                await self.connection.close()


class _SqliteEngine(SQLiteEngine):
    """Piccolo's engine, with transactions that leave nothing behind when the disk is full."""

    def transaction(
        self,
        transaction_type: TransactionType = TransactionType.deferred,
        allow_nested: bool = True,  # noqa: FBT002  # as Piccolo calls it
    ) -> SQLiteTransaction:
        return _SqliteTransaction(self, transaction_type, allow_nested)


def default_url(data_dir: str) -> str:
    """The SQLite database in the data directory."""
    return f"{_SQLITE_PREFIX}{Path(data_dir).expanduser().resolve() / DATABASE_FILE}"


def url_or_default(url: str | None, data_dir: str | None) -> str:
    """What DATABASE_URL and LLMGATEWAY_DATA_DIR say; for the `piccolo` command, which knows no settings of ours."""
    return (url or "").strip() or default_url(data_dir or DEFAULT_DATA_DIR)


def engine_for(url: str) -> SQLiteEngine | PostgresEngine:
    """The engine for a `sqlite:///` or `postgresql://` URL.

    Raises:
        InvalidValue: another scheme. The message does not repeat the URL, which may hold a password.
    """
    if url.startswith(_SQLITE_PREFIX) and len(url) > len(_SQLITE_PREFIX):
        return _SqliteEngine(path=str(sqlite_path(url)), timeout=BUSY_TIMEOUT_SECONDS)
    if url.startswith(_POSTGRES_PREFIXES):
        return _PostgresEngine(config={"dsn": url, "server_settings": _SERVER_SETTINGS}, extensions=())
    raise InvalidValue("DATABASE_URL must begin with sqlite:/// or postgresql://")


def sqlite_path(url: str) -> Path:
    """The file of a SQLite URL: `sqlite:///a.db` is relative to the working directory, `sqlite:////a.db` absolute."""
    return Path(url.removeprefix(_SQLITE_PREFIX))


def missing_file(url: str) -> Path | None:
    """The absolute path of a SQLite URL at which there is no file."""
    if not url.startswith(_SQLITE_PREFIX) or sqlite_path(url).exists():
        return None
    return sqlite_path(url).resolve()


def describe(url: str) -> str:
    """The URL for people and logs: no password, no user."""
    if url.startswith(_SQLITE_PREFIX):
        return f"SQLite {sqlite_path(url)}"
    parts = urlsplit(url)
    hosts = unquote(parts.netloc.rpartition("@")[2]) or parse_qs(parts.query).get("host", ["/"])[-1]
    return f"PostgreSQL {'local socket' if hosts.startswith('/') else hosts}{unquote(parts.path)}"
