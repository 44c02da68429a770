"""Connections that end, or lead nowhere good any more: what was asked fails as in an outage, and what follows works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from proxy.infrastructure.persistence.batch_table import BatchTable
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database, bind, open_database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.sessions import session, session_within
from tests.conftest import StartGateway
from tests.persistence.test_arrival import health_when

Write = Callable[[Database], Awaitable[None]]
SECONDS = 5.0
TERMINATE = b"X\0\0\0\4"
FAREWELL = b"57P01"  # admin_shutdown
READ_ONLY = "ALTER DATABASE {} SET default_transaction_read_only = on"
WRITABLE = "ALTER DATABASE {} RESET default_transaction_read_only"
END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"


@dataclass
class Relay:
    """Between clients and a server's socket. A farewell of the server arrives, but not that it hangs up."""

    server: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[bytes] = field(default_factory=list)  # from clients
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self.server)
        there = asyncio.create_task(_copy(reader, to_server, self.heard))
        try:
            if FAREWELL in await _copy(from_server, writer):
                self.ended.set()
                await there
        finally:
            there.cancel()
            writer.close()
            to_server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: list[bytes] | None = None) -> bytes:
    """What came last; all of it is in `heard`."""
    last = b""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(last := data)
            if heard is not None:
                heard.append(data)
            await writer.drain()
    return last


@asynccontextmanager
async def relayed(url: str, directory: Path) -> AsyncIterator[tuple[str, Relay]]:
    """The same database behind a relay."""
    (host,) = parse_qs(urlsplit(url).query)["host"]
    relay = Relay(f"{host}/.s.PGSQL.5432")
    server = await asyncio.start_unix_server(relay, directory / ".s.PGSQL.5432")
    async with server:
        yield url.replace(host, str(directory)), relay
    await asyncio.gather(*relay.clients)


@asynccontextmanager
async def administrator(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace(f"/{name_of(url)}?", "/postgres?"))
    try:
        yield connection
    finally:
        await connection.close()


def name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


async def end_others(url: str) -> None:
    """Ends all connections to the database."""
    async with administrator(url) as server:
        await server.fetch(END_OTHERS, name_of(url))


async def test_a_farewell_that_comes_before_the_end_of_its_connection_is_an_outage(
    postgres_url: str, tmp_path: Path
) -> None:
    """The server says why it ends a connection, and hangs up. Who asks in between is told neither by the driver."""
    async with relayed(postgres_url, tmp_path) as (url, relay), open_database(url) as database:
        async with session_within(database, SECONDS) as to:
            await to.fetch("SELECT 1")
        await end_others(postgres_url)
        await relay.ended.wait()
        await asyncio.sleep(0.1)
        with pytest.raises(DATABASE_ERRORS):
            async with session_within(database, SECONDS) as to:
                await to.fetch("SELECT 1")
        async with session_within(database, SECONDS) as to:
            assert list(map(tuple, await to.fetch("SELECT 1"))) == [(1,)]


async def test_who_looks_whether_the_server_is_there_says_goodbye(postgres_url: str, tmp_path: Path) -> None:
    """Where TLS is used the server logs an error for each one that hangs up without a word."""
    async with relayed(postgres_url, tmp_path) as (url, relay):
        await bind(url).ping(SECONDS)
        assert relay.heard[-1] == TERMINATE


async def test_what_follows_a_transaction_whose_connection_was_lost_does_not_fail(postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        for _ in range(2):
            with pytest.raises(DATABASE_ERRORS):
                await _lose_in_a_transaction(database)
        assert await database.model_pricing.count() > 0


async def _lose_in_a_transaction(database: Database) -> None:
    async with database.engine.transaction():
        ((process,),) = map(dict.values, await database.model_pricing.raw("SELECT pg_backend_pid()"))
        async with administrator(database.url) as server:
            await server.execute(f"SELECT pg_terminate_backend({process})")
        await database.model_pricing.count()


async def test_a_transaction_that_cannot_begin_leaves_nothing_behind(postgres_url: str, tmp_path: Path) -> None:
    async with relayed(postgres_url, tmp_path) as (url, relay), open_database(url) as database:
        await database.model_pricing.count()
        await end_others(postgres_url)
        await relay.ended.wait()
        await asyncio.sleep(0.1)
        with pytest.raises(DATABASE_ERRORS):
            async with database.engine.transaction():
                raise AssertionError
        async with database.engine.transaction():
            assert await database.model_pricing.count() > 0


async def _released(database: Database) -> None:
    async with row_writer(database) as writer:
        await writer.release("nobody")


async def _deleted(database: Database) -> None:
    async with session(database) as to, to.transaction():
        await to.execute("DELETE FROM audit_log")


async def _deleted_in_time(database: Database) -> None:
    async with session_within(database, SECONDS) as to, to.transaction():
        await to.execute("DELETE FROM audit_log")


async def _deleted_beside(database: Database) -> None:
    await BatchTable(database, "request_payloads", {"id": "uuid"}).delete_before(datetime.now(UTC), 1)


async def _deleted_by_piccolo(database: Database) -> None:
    async with database.engine.transaction():
        await database.model_pricing.delete(force=True)


async def _can(write: Write, database: Database) -> bool:
    with suppress(asyncpg.ReadOnlySQLTransactionError):
        await write(database)
        return True
    return False


@pytest.mark.parametrize("write", [_released, _deleted, _deleted_in_time, _deleted_beside, _deleted_by_piccolo])
async def test_a_connection_that_may_only_read_is_not_used_again(postgres_url: str, write: Write) -> None:
    """It leads to a server that is no primary any more, or to one that has become writable for new sessions."""
    name = name_of(postgres_url)
    async with administrator(postgres_url) as server:
        await server.execute(READ_ONLY.format(name))
        async with open_database(postgres_url) as database:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await write(database)
            await server.execute(WRITABLE.format(name))
            async with asyncio.timeout(10):
                while not await _can(write, database):  # the pool may have opened one more by then
                    await asyncio.sleep(0.1)


async def test_a_database_that_may_only_be_read_for_a_while_is_named_and_gets_its_rows(
    postgres_url: str, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(database_url=postgres_url)
    name = name_of(postgres_url)
    async with administrator(postgres_url) as server:
        await server.execute(READ_ONLY.format(name))
        await end_others(postgres_url)
        assert (await gateway.chat())[0] == 200
        report = await health_when(
            gateway, lambda report: report["ledger"]["last_error"] == "ReadOnlySQLTransactionError"
        )
        assert "the database does not take rows (ReadOnlySQLTransactionError)" in report["problems"]
        await server.execute(WRITABLE.format(name))
    await gateway.rows(1)
    await health_when(gateway, lambda report: report["ledger"]["can_book"])
