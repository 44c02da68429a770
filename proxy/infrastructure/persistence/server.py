"""What must be known of a PostgreSQL server before it is used.

A pooler may be before it, which gives each transaction another connection. Nothing here needs more of a session than
its transactions, but prepared statements: they are made on one connection, and asked for on another. So behind a pooler
the driver keeps none.

Clients name models as they like, and each row must be taken: the database must have all letters.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
from piccolo.engine.postgres import PostgresEngine

_ENCODING: Final = "UTF8"
_CACHE: Final = "statement_cache_size"
_NO_TRANSACTIONS: Final = "transaction blocks not allowed in statement pooling mode"  # as PgBouncer says it
# For a transaction that holds a lock while others work. Which of them there are depends on the server's version.
WITHOUT_TIME_LIMITS: Final = """SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN
    ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"""


async def new_connection(engine: PostgresEngine, **options: Any) -> Any:
    """asyncpg's, of its own. Raises DATABASE_ERRORS."""
    return await asyncpg.connect(**{**engine.config, **options})


async def look_at(engine: PostgresEngine) -> None:
    """Asks the server, and whether it is the one that was connected to; connections after this one know.

    A pooler has made up the process that it names to its clients, by which they would cancel. Raises DATABASE_ERRORS,
    and of them one that waiting does not help against for a pooler that knows no transactions, and for an encoding in
    which not everything can be kept.
    """
    connection = await new_connection(engine, **{_CACHE: 0})
    try:
        encoding = getattr(connection.get_settings(), "server_encoding", _ENCODING)  # a pooler might not tell
        if encoding != _ENCODING:
            raise asyncpg.UnsupportedServerFeatureError(
                f"the database's encoding is {encoding}: make one with ENCODING '{_ENCODING}' TEMPLATE template0"
            )
        is_pooled = await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid()
        if is_pooled and _CACHE not in engine.config:
            await _begin(connection)
            engine.config[_CACHE] = 0
        await connection.close()
    finally:
        connection.terminate()  # at once, if that is not over


async def _begin(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("BEGIN")
    except asyncpg.ConnectionDoesNotExistError as problem:
        if _NO_TRANSACTIONS in str(problem):
            raise asyncpg.ProtocolViolationError(f"{_NO_TRANSACTIONS}: let it pool sessions or transactions") from None
        raise
