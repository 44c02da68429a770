"""Keys in memory: when the source is asked, and what is believed while it is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from proxy.domain.access.keys import generate_key, key_hash
from proxy.domain.access.known_keys import KnownKey, known_key
from proxy.domain.access.tenants import Organisation, Team
from proxy.domain.errors import NotAuthenticated, NotServing
from proxy.infrastructure.access.changes import Change
from proxy.infrastructure.access.directory import CachedKeyDirectory
from tests.access.tenancy import NOW, virtual_key

STALE_SECONDS = 100.0


@dataclass
class Source:
    """A KeySource that counts, fails and waits when told."""

    keys: dict[str, KnownKey] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    error: Exception | None = None
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def find(self, key_hash: str, now: datetime) -> KnownKey | None:  # tells bad ones, too
        self.asked.append(key_hash)
        found = self.keys.get(key_hash)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return found

    def add(self, **members: object) -> str:
        """A new key's hash."""
        known = known_key(virtual_key(generate_key(), **members), None, None)
        self.keys[known.key.hash] = known
        return known.key.hash


@dataclass
class World:
    """A directory, what it reads, and the time."""

    source: Source = field(default_factory=Source)
    confirmed_at: float = 0.0
    seconds: float = 0.0
    now: datetime = NOW
    most_keys: int = 100

    def __post_init__(self) -> None:
        self.directory = CachedKeyDirectory(
            self.source,
            self,
            STALE_SECONDS,
            most_keys=self.most_keys,
            now=lambda: self.now,
            clock=lambda: self.seconds,
        )

    def pass_time(self, seconds: float, *, confirmed: bool = True) -> None:
        self.seconds += seconds
        self.now += timedelta(seconds=seconds)
        if confirmed:
            self.confirmed_at = self.seconds

    async def outcome(self, key_hash: str) -> str:
        try:
            await self.directory.find(key_hash)
        except NotAuthenticated:
            return "401"
        except NotServing:
            return "503"
        return "200"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    world.source.may_answer.set()
    await world.directory.close()


async def test_a_known_key_is_not_asked_for_again(world: World) -> None:
    good = world.source.add()
    for _ in range(5):
        assert await world.outcome(good) == "200"
        world.pass_time(1000)
    assert world.source.asked == [good]


async def test_a_known_key_is_found_without_waiting(world: World) -> None:
    good = world.source.add()
    await world.directory.find(good)
    finding = world.directory.find(good)
    with pytest.raises(StopIteration):
        finding.send(None)


async def test_unknown_disabled_expired_and_nearly_right_keys_are_the_same_work(world: World) -> None:
    """One look each, and none for a while after it."""
    good = world.source.add()
    nearly = good[:-1] + ("0" if good[-1] != "0" else "1")
    refused = [
        key_hash("sk-unknown"),
        nearly,
        world.source.add(disabled=True),
        world.source.add(expires_at=NOW),
    ]
    for each in refused:
        asked = len(world.source.asked)
        assert [await world.outcome(each) for _ in range(3)] == ["401"] * 3
        assert world.source.asked[asked:] == [each]
    world.pass_time(3.1)
    for each in refused:
        asked = len(world.source.asked)
        assert await world.outcome(each) == "401"
        assert world.source.asked[asked:] == [each]


async def test_refusals_say_the_same(world: World) -> None:
    told = set()
    for each in (key_hash("sk-unknown"), world.source.add(disabled=True), world.source.add(expires_at=NOW)):
        with pytest.raises(NotAuthenticated) as raised:
            await world.directory.find(each)
        told.add(str(raised.value))
    assert len(told) == 1


async def test_a_key_expires_by_the_clock_though_it_is_known(world: World) -> None:
    good = world.source.add(expires_at=NOW + timedelta(seconds=10))
    assert await world.outcome(good) == "200"
    world.pass_time(9.9)
    assert await world.outcome(good) == "200"
    world.pass_time(0.1)
    assert await world.outcome(good) == "401"


async def test_the_key_before_a_rotation_ends_by_the_clock(world: World) -> None:
    old = key_hash("sk-old")
    good = world.source.add(previous_hash=old, previous_until=NOW + timedelta(seconds=10))
    world.source.keys[old] = world.source.keys[good]
    assert (await world.outcome(old), await world.outcome(good)) == ("200", "200")
    world.pass_time(10)
    assert (await world.outcome(old), await world.outcome(good)) == ("401", "200")


@pytest.mark.parametrize("kind", ["virtual_keys", "teams", "organisations"])
async def test_a_change_is_heeded_at_once(world: World, kind: str) -> None:
    """And the keys that it does not concern stay known."""
    organisation = Organisation(id=uuid4(), name="o", created_at=NOW)
    team = Team(id=uuid4(), name="t", created_at=NOW, organisation_id=organisation.id)
    known = known_key(virtual_key(generate_key()), team, organisation)
    good, other = known.key.hash, world.source.add()
    world.source.keys[good] = known
    await world.directory.find(good)
    await world.directory.find(other)
    world.source.keys[good] = replace(known, is_disabled=True)
    ids = {"virtual_keys": known.key.id, "teams": team.id, "organisations": organisation.id}
    world.directory.heed([Change(kind, str(ids[kind]))])
    assert (await world.outcome(good), await world.outcome(other)) == ("401", "200")
    assert world.source.asked == [good, other, good]


@pytest.mark.parametrize("kind", ["budgets", "rate_limits"])
async def test_a_changed_rule_has_all_keys_read_again(world: World, kind: str) -> None:
    good = world.source.add()
    await world.directory.find(good)
    world.directory.heed([Change(kind, str(uuid4()))])
    assert await world.outcome(good) == "200"
    assert world.source.asked == [good, good]


async def test_a_new_key_is_known_at_once_though_it_was_tried_before(world: World) -> None:
    new = virtual_key(generate_key())
    assert await world.outcome(new.hash) == "401"
    world.source.keys[new.hash] = known_key(new, None, None)
    world.directory.heed([Change("virtual_keys", str(new.id))])
    assert await world.outcome(new.hash) == "200"


async def test_a_key_that_changes_while_it_is_read_is_read_again(world: World) -> None:
    good = world.source.add()
    world.source.may_answer.clear()
    finding = asyncio.create_task(world.outcome(good))
    while not world.source.asked:
        await asyncio.sleep(0)
    known = world.source.keys[good]
    world.source.keys[good] = replace(known, is_disabled=True)
    world.directory.heed([Change("virtual_keys", str(known.key.id))])
    world.source.may_answer.set()
    assert await finding == "401"
    assert world.source.asked == [good, good]


async def test_all_who_ask_at_a_time_share_one_look(world: World) -> None:
    good = world.source.add()
    world.source.may_answer.clear()
    asking = [asyncio.create_task(world.outcome(good)) for _ in range(20)]
    while not world.source.asked:
        await asyncio.sleep(0)
    asking[0].cancel()  # who hangs up does not spoil it for the others
    world.source.may_answer.set()
    assert await asyncio.gather(*asking[1:]) == ["200"] * 19
    assert world.source.asked == [good]


async def test_no_more_than_some_are_looked_up_at_a_time(world: World) -> None:
    """A flood of invented keys takes neither all connections nor all memory."""
    world.source.may_answer.clear()
    asking = [asyncio.create_task(world.outcome(key_hash(f"sk-{number}"))) for number in range(600)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in asking) < 100 or len(world.source.asked) < 4:
            await asyncio.sleep(0)
    assert {task.result() for task in asking if task.done()} == {"503"}
    assert len(world.source.asked) == 4
    world.source.may_answer.set()
    assert sorted(await asyncio.gather(*asking)) == ["401"] * 500 + ["503"] * 100


async def test_the_least_recently_used_key_is_forgotten_first() -> None:
    world = World(most_keys=2)
    first, second, third = (world.source.add() for _ in range(3))
    for each in (first, second, first, third, first, second):
        await world.directory.find(each)
    assert world.source.asked == [first, second, third, second]


# While the database is away


async def test_known_keys_serve_on_and_unknown_ones_are_not_called_wrong(world: World) -> None:
    good, never_seen = world.source.add(), world.source.add()
    await world.directory.find(good)
    world.source.error = ConnectionRefusedError()
    world.pass_time(STALE_SECONDS - 1, confirmed=False)
    assert (await world.outcome(good), await world.outcome(never_seen)) == ("200", "503")
    assert await world.outcome(key_hash("sk-unknown")) == "503"


async def test_known_keys_serve_on_for_so_long_and_no_longer(world: World) -> None:
    """Counted from when changes were last heard of, not from when the key was read."""
    good = world.source.add()
    await world.directory.find(good)
    world.pass_time(500)
    world.source.error = ConnectionRefusedError()
    world.pass_time(STALE_SECONDS, confirmed=False)
    assert await world.outcome(good) == "200"
    world.pass_time(0.1, confirmed=False)
    assert await world.outcome(good) == "503"
    world.source.error = None
    assert await world.outcome(good) == "200"


async def test_a_key_that_expires_meanwhile_is_no_more_let_in(world: World) -> None:
    good = world.source.add(expires_at=NOW + timedelta(seconds=5))
    await world.directory.find(good)
    world.source.error = ConnectionRefusedError()
    world.pass_time(5, confirmed=False)
    assert await world.outcome(good) == "503"


async def test_keys_that_may_have_changed_serve_on_until_the_database_answers(world: World) -> None:
    good = world.source.add()
    await world.directory.find(good)
    world.source.error = TimeoutError()
    world.directory.heed(None)
    assert [await world.outcome(good) for _ in range(3)] == ["200"] * 3
    assert len(world.source.asked) == 2  # one try, and none for a second
    world.source.error = None
    world.source.keys.clear()
    world.pass_time(1)
    assert await world.outcome(good) == "401"


async def test_a_key_that_has_changed_does_not_serve_on(world: World) -> None:
    good = world.source.add()
    principal = await world.directory.find(good)
    world.source.error = TimeoutError()
    world.directory.heed([Change("virtual_keys", str(principal.key_id))])
    assert await world.outcome(good) == "503"


async def test_while_nothing_is_heard_of_changes_keys_are_read_again_behind_the_scenes(world: World) -> None:
    """The database answers, but the feed has no connection: a revoked key must not live on for an hour."""
    good = world.source.add()
    await world.directory.find(good)
    world.source.keys.clear()
    world.pass_time(10.1, confirmed=False)
    assert await world.outcome(good) == "200"
    await world.directory.close()  # what was begun is done
    assert await world.outcome(good) == "401"
