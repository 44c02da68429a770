"""A deployment's places: no more calls than it may have, a queue with an end, and nobody forgotten in it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.errors import DeploymentBusy
from proxy.infrastructure.deployments.places import Places


async def waiting(places: Places, count: int) -> None:
    while places.waiting != count:
        await asyncio.sleep(0)


async def test_without_a_limit_there_is_always_a_place() -> None:
    places = Places("d")
    for _ in range(10_000):
        await places.take(1)
    assert (places.taken, places.is_full) == (10_000, False)


async def test_the_first_that_waits_gets_the_place() -> None:
    places = Places("d", most=1, most_waiting=2)
    await places.take(1)
    order: list[str] = []

    async def wait(name: str) -> None:
        await places.take(10)
        order.append(name)

    first = asyncio.create_task(wait("first"))
    await waiting(places, 1)
    second = asyncio.create_task(wait("second"))
    await waiting(places, 2)
    assert places.is_full
    with pytest.raises(DeploymentBusy, match="'d' is busy: its queue is full") as refused:
        await places.take(10)
    assert refused.value.retry_after_seconds > 0
    places.leave()
    await first
    places.leave()
    await second
    assert order == ["first", "second"]
    places.leave()
    assert (places.taken, places.waiting, places.is_full) == (0, 0, False)


@pytest.mark.parametrize(("queue_seconds", "own_seconds"), [(0.01, 60), (60, 0.01)])
async def test_who_waits_too_long_is_told_and_leaves_the_queue(queue_seconds: float, own_seconds: float) -> None:
    places = Places("d", most=1, wait_seconds=queue_seconds)
    await places.take(1)
    with pytest.raises(DeploymentBusy, match=r"no place was free within 0\.01 s"):
        await places.take(own_seconds)
    assert places.waiting == 0
    places.leave()
    assert places.taken == 0


async def test_a_place_that_comes_free_as_its_waiter_hangs_up_is_free() -> None:
    places = Places("d", most=1)
    await places.take(1)
    taker = asyncio.create_task(places.take(60))
    await waiting(places, 1)
    taker.cancel()
    places.leave()
    with pytest.raises(asyncio.CancelledError):
        await taker
    assert (places.taken, places.waiting) == (0, 0)


async def test_a_place_that_comes_free_as_its_waiters_time_is_up_is_free() -> None:
    places = Places("d", most=1)
    await places.take(1)
    taker = asyncio.create_task(places.take(0))
    await waiting(places, 1)
    await asyncio.sleep(0)  # its time is up, and it is yet to hear of it
    places.leave()
    with pytest.raises(DeploymentBusy, match="no place was free within 0 s"):
        await taker
    assert (places.taken, places.waiting) == (0, 0)


async def test_nobody_overtakes_the_queue() -> None:
    places = Places("d", most=1)
    assert places.take_at_once()
    first = asyncio.create_task(places.take(10))
    await waiting(places, 1)
    places.leave()
    assert not places.take_at_once()
    second = asyncio.create_task(places.take(10))
    await first
    await waiting(places, 1)
    places.leave()
    await second
    assert places.taken == 1


class Users:
    """Tasks that take places, and those that have one."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.held = 0
        self._takers: list[asyncio.Task[None]] = []

    async def do(self, step: str) -> None:
        if step == "take":
            self._takers.append(asyncio.create_task(self.places.take(60)))
        elif step == "leave" and self.held:
            self.places.leave()
            self.held -= 1
        elif step == "cancel" and self._takers:
            self._takers[-1].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        done = [task for task in self._takers if task.done()]
        self._takers = [task for task in self._takers if not task.done()]
        self.held += sum(not task.cancelled() and task.exception() is None for task in done)

    async def end(self) -> None:
        for task in self._takers:
            task.cancel()
        await self.settle()
        while self.held:
            await self.do("leave")


@given(st.lists(st.sampled_from(["take", "leave", "cancel", "wait"]), max_size=60), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_no_place_is_lost_and_none_is_given_twice(steps: list[str], most: int) -> None:
    async def live() -> None:
        users = Users(Places("d", most=most, most_waiting=5))
        for step in steps:
            await users.do(step)
            assert users.held == users.places.taken <= most
        await users.end()
        assert (users.places.taken, users.places.waiting) == (0, 0)

    asyncio.run(live())
