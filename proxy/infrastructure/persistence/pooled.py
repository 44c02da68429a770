"""One of PostgreSQL's pooled connections, for as long as a block takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from proxy.infrastructure.persistence.errors import ends_its_connection


@asynccontextmanager
async def pooled(engine: PostgresEngine, seconds: float | None) -> AsyncIterator[Any]:
    """asyncpg's connection, waited for and had for at most so long. Raises DATABASE_ERRORS."""
    pool = engine.pool
    if pool is None:
        raise ConnectionError("the connection pool is closed")
    connection = await pool.acquire(timeout=seconds)
    try:
        async with asyncio.timeout(seconds):
            yield connection
    except BaseException as problem:
        if ends_its_connection(problem):
            hang_up(connection)
        raise
    finally:
        await pool.release(connection)


@asynccontextmanager
async def transaction(connection: Any, **options: Any) -> AsyncIterator[None]:
    """asyncpg's, which would ask also a frozen server for a rollback, and wait, whatever time its user has."""
    begun = connection.transaction(**options)
    await begun.start()
    try:
        yield
    except (TimeoutError, asyncio.CancelledError):
        hang_up(connection)
        raise
    except Exception:
        await begun.rollback()
        raise
    await begun.commit()


def hang_up(connection: Any) -> None:
    """Ends it without asking the server. One that the server has ended is with the pool already, and takes no more."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
