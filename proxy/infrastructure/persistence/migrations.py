"""Bringing a database's schema up to date, safely when several processes start together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import asyncpg
from piccolo.apps.migrations.commands.base import BaseMigrationManager
from piccolo.apps.migrations.commands.forwards import run_forwards
from piccolo.apps.migrations.tables import Migration

from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.engine import sqlite_path
from proxy.infrastructure.persistence.piccolo_app import APP_CONFIG, APP_NAME

_ADVISORY_LOCK = 5_417_036_642_201  # any number, the same in every version
_CONF_MODULE = "piccolo_conf"


async def pending_migrations(database: Database) -> list[str]:
    """The ids of the migrations that the database has not seen; all of them if it is empty."""
    modules = BaseMigrationManager().get_migration_modules(APP_CONFIG.resolved_migrations_folder_path)
    known = sorted(modules)
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
            _point_piccolo_at(database)
            with contextlib.redirect_stdout(io.StringIO()):  # Piccolo reports on stdout, which is the caller's
                await run_forwards(APP_NAME)
        return pending


def _point_piccolo_at(database: Database) -> None:
    """Piccolo's migrations find their engine in `piccolo_conf` only; make it the one that was asked for."""
    importlib.import_module(_CONF_MODULE).DB = database.engine  # type: ignore[attr-defined]
    Migration._meta.db = database.engine  # noqa: SLF001


@asynccontextmanager
async def _locked(database: Database) -> AsyncIterator[None]:
    if database.is_postgres:
        connection = await asyncpg.connect(database.url)
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
            yield
        finally:
            await connection.close()  # gives the lock back
    else:
        lock = await asyncio.to_thread(_lock_file, Path(f"{sqlite_path(database.url)}.lock"))
        with lock:
            yield


def _lock_file(path: Path) -> TextIO:
    """The file, open and locked; closing it unlocks it."""
    lock = path.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
