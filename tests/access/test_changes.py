"""Hearing of changes, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from proxy.domain.access.scopes import GATEWAY
from proxy.infrastructure.access.changes import Change, ChangeFeed, Changes, _Window, following_changes
from proxy.infrastructure.persistence.database import Database, open_database
from tests.access.tenancy import Tenancy, budget, limit


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        yield database


class Heard:
    """A subscriber that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Changes] = []
        self._more = asyncio.Event()

    def __call__(self, changes: Changes) -> None:
        self.told.append(changes)
        self._more.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not is_so():
                self._more.clear()
                await self._more.wait()

    def changes(self) -> set[Change]:
        return {change for changes in self.told for change in changes or ()}


@asynccontextmanager
async def followed(database: Database) -> AsyncIterator[tuple[ChangeFeed, Heard]]:
    """A feed that has begun, and its subscriber."""
    feed, heard = ChangeFeed(database), Heard()
    feed.subscribe(heard)
    async with following_changes(feed):
        await heard.until(lambda: bool(heard.told))
        yield feed, heard


async def test_first_anything_may_have_changed(database: Database, database_url: str) -> None:
    await Tenancy(database_url).key()
    async with followed(database) as (_, heard):
        assert heard.told == [None]


async def test_every_kind_of_change_is_told(database: Database, database_url: str) -> None:
    tenancy = Tenancy(database_url)
    async with followed(database) as (_, heard):
        organisation = await tenancy.organisation()
        team = await tenancy.team(organisation.id)
        _, key = await tenancy.key()
        money, rate = budget(GATEWAY), limit(GATEWAY, requests_per_minute=1)
        await tenancy.add(money)
        await tenancy.add(rate)
        rows = {
            "organisations": organisation.id,
            "teams": team.id,
            "virtual_keys": key.id,
            "budgets": money.id,
            "rate_limits": rate.id,
        }
        expected = {Change(kind, str(id_)) for kind, id_ in rows.items()}
        await heard.until(lambda: heard.changes() == expected)
        heard.told.clear()
        await tenancy.change("virtual_keys", key.id, disabled=True)
        await heard.until(lambda: heard.changes() == {Change("virtual_keys", str(key.id))})
        heard.told.clear()
        await tenancy.delete("virtual_keys", key.id)
        await heard.until(lambda: heard.changes() == {Change("virtual_keys", str(key.id))})


async def test_a_change_is_told_once(database: Database, database_url: str) -> None:
    tenancy = Tenancy(database_url)
    async with followed(database) as (_, heard):
        for _ in range(3):
            _, key = await tenancy.key()
            await heard.until(lambda key=key: Change("virtual_keys", str(key.id)) in heard.changes())  # type: ignore[misc]
        told = [change for changes in heard.told for change in changes or ()]
        assert len(told) == len(set(told)) == 3


async def test_a_feed_says_until_when_it_has_heard_of_all(database: Database, database_url: str) -> None:
    async with followed(database) as (feed, heard):
        before = feed.confirmed_at
        await Tenancy(database_url).key()
        await heard.until(lambda: len(heard.told) == 2)
        async with asyncio.timeout(10):
            while feed.confirmed_at <= before:
                await asyncio.sleep(0)


async def test_after_a_lost_connection_anything_may_have_changed(postgres_url: str) -> None:
    async with open_database(postgres_url) as database, followed(database) as (_, heard):
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%access_changes%' "
            "AND datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        await heard.until(lambda: heard.told[1:] == [None])
        _, key = await Tenancy(postgres_url).key()
        await heard.until(lambda: heard.told[2:] == [[Change("virtual_keys", str(key.id))]])


async def test_a_change_that_is_committed_late_is_heard_of(postgres_url: str) -> None:
    """Its number is lower than that of one that was told already, and its notification comes when it commits."""
    tenancy = Tenancy(postgres_url)
    async with open_database(postgres_url) as database, followed(database) as (_, heard):
        late, early = await tenancy.team(), await tenancy.team()
        await heard.until(lambda: len(heard.changes()) == 2)
        heard.told.clear()
        connection = await asyncpg.connect(postgres_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("UPDATE teams SET disabled = true WHERE id = $1", late.id)
        await tenancy.change("teams", early.id, disabled=True)
        await heard.until(lambda: heard.changes() == {Change("teams", str(early.id))})
        await transaction.commit()
        await connection.close()
        await heard.until(lambda: Change("teams", str(late.id)) in heard.changes())


def rows_of(*numbers: int) -> list[tuple[int, str, str]]:
    return [(number, "teams", str(number)) for number in sorted(numbers, reverse=True)]


def numbers_in(changes: Changes) -> list[int] | None:
    return None if changes is None else [int(change.object_id) for change in changes]


def test_rows_are_told_oldest_first_and_once() -> None:
    window = _Window()
    assert numbers_in(window.take(rows_of(1, 2), 0)) is None
    assert numbers_in(window.take(rows_of(1, 2), 1)) == []
    assert numbers_in(window.take(rows_of(1, 2, 5, 4), 2)) == [4, 5]
    assert numbers_in(window.take(rows_of(1, 2, 3, 4, 5), 3)) == [3]


def test_rows_are_asked_for_until_none_can_come_late() -> None:
    window = _Window()
    window.take(rows_of(1, 2), 0)
    window.take(rows_of(1, 2, 7), 30)
    assert window.floor == 0
    window.take(rows_of(1, 2, 7), 60)
    assert window.floor == 2
    assert numbers_in(window.take(rows_of(7, 6), 61)) == [6]
    window.take(rows_of(7, 6), 121)
    assert window.floor == 7


def test_more_rows_than_are_read_at_a_time_may_be_anything() -> None:
    window = _Window()
    window.take([], 0)
    assert numbers_in(window.take(rows_of(*range(3001, 5001)), 1)) is None
    assert window.floor == 4000
    assert numbers_in(window.take(rows_of(*range(4001, 5003)), 2)) == [5001, 5002]


async def test_a_feed_ends_also_while_its_database_is_away() -> None:
    from proxy.infrastructure.persistence.database import bind

    feed, heard = ChangeFeed(bind(f"postgresql://me@127.0.0.1:1/{uuid4()}")), Heard()
    feed.subscribe(heard)
    async with asyncio.timeout(10), following_changes(feed):
        await asyncio.sleep(0)
    assert heard.told == []


async def test_changes_of_long_ago_are_forgotten(database: Database, database_url: str) -> None:
    """When a feed begins: whoever has missed so many reads everything again."""
    tenancy = Tenancy(database_url)
    await tenancy.execute("INSERT INTO access_changes (kind, object_id) VALUES ('teams', 'first')")
    override = "OVERRIDING SYSTEM VALUE" if database.is_postgres else ""
    for sequence in (2, 100_001, 100_002):
        await tenancy.execute(
            f"INSERT INTO access_changes (sequence, kind, object_id) {override} VALUES ({sequence}, 'teams', 'x')"
        )
    async with followed(database), asyncio.timeout(10):
        while len(await tenancy.fetch("SELECT sequence FROM access_changes")) != 2:
            await asyncio.sleep(0.01)
    assert [row[0] for row in await tenancy.fetch("SELECT sequence FROM access_changes ORDER BY 1")] == [
        100_001,
        100_002,
    ]
