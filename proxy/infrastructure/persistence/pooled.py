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
    if engine.pool is None:
        raise ConnectionError("the connection pool is closed")
    connection = await engine.pool.acquire(timeout=seconds)
    try:
        async with asyncio.timeout(seconds):
            yield connection
    except (TimeoutError, asyncio.CancelledError):
        hang_up(connection)  # to cancel properly one must ask the server, which may be frozen
        raise
    except Exception as problem:
        if ends_its_connection(problem):
            hang_up(connection)
        raise
    finally:
        await engine.pool.release(connection)


def hang_up(connection: Any) -> None:
    """Ends it without asking the server. One that the server has ended is with the pool already, and takes no more."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
