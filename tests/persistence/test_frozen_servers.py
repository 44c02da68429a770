"""A server that stops answering in the midst of something: who has no more time, or is told to end, does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.sessions import session, session_within
from tests.persistence.test_arrival import Server, running_server, server

__all__ = ["running_server", "server"]

SECONDS = 0.5
Freeze = Callable[[], None]
Work = Callable[[Database, Freeze], Awaitable[None]]


async def _in_a_transaction(database: Database, freeze: Freeze) -> None:
    async with session_within(database, SECONDS) as to, to.transaction():
        await to.fetch("SELECT 1")
        freeze()
        await to.fetch("SELECT 1")


async def _in_a_snapshot(database: Database, freeze: Freeze) -> None:
    async with asyncio.timeout(SECONDS), session(database) as to, to.snapshot(writing=False):
        await to.fetch("SELECT 1")
        freeze()
        await to.fetch("SELECT 1")


async def _in_piccolos_transaction(database: Database, freeze: Freeze) -> None:
    async with asyncio.timeout(SECONDS), database.engine.transaction():
        await database.model_pricing.count()
        freeze()
        await database.model_pricing.count()


async def _in_piccolos_query(database: Database, freeze: Freeze) -> None:
    async with asyncio.timeout(SECONDS):
        await database.model_pricing.count()
        freeze()
        await database.model_pricing.count()


async def _in_upkeep(database: Database, freeze: Freeze) -> None:
    def now() -> datetime:
        freeze()
        return datetime.now(UTC)

    async with asyncio.timeout(SECONDS):
        await LedgerUpkeep(database, 0, clock=now).run()


@pytest.mark.parametrize(
    "work", [_in_a_transaction, _in_a_snapshot, _in_piccolos_transaction, _in_piccolos_query, _in_upkeep]
)
async def test_who_has_no_more_time_does_not_wait_for_the_server(server: Server, work: Work) -> None:
    async with open_database(await server.new_database()) as database:
        await migrate(database)
        working = asyncio.ensure_future(work(database, server.freeze))
        done, _ = await asyncio.wait([working], timeout=10)
        server.thaw()
        working.cancel()
        assert done
        with pytest.raises(TimeoutError):
            await working
        async with session(database) as to:
            assert list(map(tuple, await to.fetch("SELECT 1"))) == [(1,)]


async def test_who_ends_does_not_wait_for_the_server(server: Server) -> None:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(await server.new_database()))
        async with session(database) as to:
            await to.fetch("SELECT 1")
        server.freeze()
        ending = asyncio.ensure_future(stack.aclose())
        done, _ = await asyncio.wait([ending], timeout=10)
        server.thaw()
        await ending
        assert done
