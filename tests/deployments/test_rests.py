"""Waiting for the end of a cool-down."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from proxy.domain.errors import DeploymentBusy
from proxy.infrastructure.deployments.rests import Rests
from tests.harness import FakeTime


class CoolDown:
    """It ends at a moment that may be put off."""

    def __init__(self, time: FakeTime, seconds: float) -> None:
        self.time = time
        self.end = time.now + seconds

    def __call__(self) -> float:
        return max(0.0, self.end - self.time.now)


async def test_who_rests_goes_on_when_the_cool_down_is_over() -> None:
    time = FakeTime()
    rests = Rests(30, 100, time.timing())
    await rests.until_over("d", CoolDown(time, 4), most_seconds=60)
    assert (time.waits, rests.waiting) == ([4], 0)
    await rests.until_over("d", CoolDown(time, 0), most_seconds=60)
    assert time.waits == [4]


async def test_not_all_go_on_at_the_same_moment() -> None:
    time = FakeTime()
    rests = Rests(30, 100, replace(time.timing(), jitter=lambda: 1.0))
    await rests.until_over("d", CoolDown(time, 4), most_seconds=60)
    assert time.waits == [5]


@pytest.mark.parametrize(("seconds", "most_seconds"), [(31, 60), (9, 8)], ids=["the cap", "the deadline"])
async def test_what_takes_too_long_is_not_waited_for(seconds: float, most_seconds: float) -> None:
    time = FakeTime()
    rests = Rests(30, 100, time.timing())
    with pytest.raises(DeploymentBusy, match=rf"'d' is busy: it is cooling down, {seconds} s left") as raised:
        await rests.until_over("d", CoolDown(time, seconds), most_seconds)
    assert (raised.value.retry_after_seconds, time.waits) == (seconds, [])


async def test_a_cool_down_that_others_prolong_is_waited_for_within_the_same_limit() -> None:
    time = FakeTime()
    cool_down = CoolDown(time, 4)
    sleep = time.sleep

    async def prolonging(seconds: float) -> None:
        await sleep(seconds)
        if len(time.waits) < 5:
            cool_down.end = time.now + 4

    timing = replace(time.timing(), sleep=prolonging)
    await Rests(30, 100, timing).until_over("d", cool_down, most_seconds=60)
    assert time.waits == [4] * 5
    time.waits.clear()
    cool_down.end = time.now + 4
    with pytest.raises(DeploymentBusy):
        await Rests(10, 100, timing).until_over("d", cool_down, most_seconds=60)
    assert time.waits == [4, 4]


async def test_only_so_many_may_rest_at_a_time() -> None:
    time = FakeTime()
    over = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await over.wait()
        time.now += 5

    rests = Rests(30, 2, replace(time.timing(), sleep=sleep))
    cool_down = CoolDown(time, 5)
    resting = [asyncio.create_task(rests.until_over("d", cool_down, 60)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (rests.waiting, rests.admit(5)) == (2, False)
    with pytest.raises(DeploymentBusy):
        await rests.until_over("d", cool_down, 60)
    resting[0].cancel()
    await asyncio.wait([resting[0]])
    assert (rests.waiting, rests.admit(5)) == (1, True)
    over.set()
    await resting[1]
    assert rests.waiting == 0


def test_nobody_rests_without_a_limit() -> None:
    assert not Rests().admit(0.1)
