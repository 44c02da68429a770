"""Bringing a database's schema up to date, safely when several processes start together."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import pkgutil
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from piccolo.apps.migrations.tables import Migration
from piccolo.engine.postgres import PostgresEngine

import piccolo_migrations
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import sqlite_path
from proxy.infrastructure.persistence.file_lock import file_locked
from proxy.infrastructure.persistence.server import WITHOUT_TIME_LIMITS, new_connection

APP_NAME: Final = "proxy"
_NAME: Final = re.compile(rf"{APP_NAME}_(\d+)_(\d+)_(\d+t\d+)_(\d+)_(\d+)_(\d+)", re.ASCII)
_ADVISORY_LOCK = 5_417_036_642_201  # any number, the same in every version
_CONF_MODULE = "piccolo_conf"


def known_migrations() -> list[str]:
    """The ids of all migrations, in their order. Piccolo names the files after them, so none has to be imported."""
    names = (_NAME.fullmatch(module.name) for module in pkgutil.iter_modules(piccolo_migrations.__path__))
    return sorted("{}-{}-{}:{}:{}:{}".format(*name.groups()).upper() for name in names if name)


async def pending_migrations(database: Database) -> list[str]:
    """The ids of the migrations that the database has not seen; all of them if it is empty."""
    known = known_migrations()
    table: Any = type("Migration", (Migration,), {}, tablename=Migration._meta.tablename, db=database.engine)  # noqa: SLF001
    if not await table.table_exists():
        return known
    applied: list[str] = await table.select(table.name).where(table.app_name == APP_NAME).output(as_list=True)
    return [migration for migration in known if migration not in applied]


async def migrate(database: Database) -> list[str]:
    """Apply what is pending and return its ids. A second process waits for the first, then finds nothing to do."""
    if not await pending_migrations(database):
        return []
    async with _locked(database):
        pending = await pending_migrations(database)
        if pending:
            run_forwards = await asyncio.to_thread(_runner)  # requests may be served meanwhile
            _point_piccolo_at(database)
            with contextlib.redirect_stdout(io.StringIO()):  # Piccolo reports on stdout, which is the caller's
                await run_forwards()
        return pending


def _runner() -> Callable[[], Coroutine[Any, Any, Any]]:
    """Piccolo's. With it comes black: 7 MB that a gateway does not need whose schema is up to date."""
    from piccolo.apps.migrations.commands.forwards import run_forwards  # noqa: PLC0415

    return partial(run_forwards, APP_NAME)


def _point_piccolo_at(database: Database) -> None:
    """Piccolo's migrations find their engine in `piccolo_conf` only; make it the one that was asked for."""
    importlib.import_module(_CONF_MODULE).DB = database.engine  # type: ignore[attr-defined]
    Migration._meta.db = database.engine  # noqa: SLF001


@asynccontextmanager
async def _locked(database: Database) -> AsyncIterator[None]:
    if isinstance(database.engine, PostgresEngine):
        connection = await new_connection(database.engine)
        try:
            async with connection.transaction():  # behind a pooler a session's lock would never be given back
                await connection.execute(WITHOUT_TIME_LIMITS)
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _ADVISORY_LOCK)
                yield
        finally:
            await connection.close()
    else:
        async with file_locked(sqlite_path(database.url)):
            yield
