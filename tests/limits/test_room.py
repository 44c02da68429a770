"""The waiting room under any order of arrivals, ends and hang-ups: no place is lost, none is given twice."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import NO_TOKENS, Priority
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.limits.running import limiting
from tests.limits.conftest import Clock, applied

QUEUE = 3
WIDE = applied(GATEWAY, concurrent_requests=2)
MODEL = applied(Subject(Scope.MODEL, "m"), concurrent_requests=1)

ARRIVAL = st.tuples(
    st.just("arrive"), st.sampled_from(list(Priority)), st.sampled_from([(WIDE,), (MODEL,), (WIDE, MODEL)])
)
COMING_AS_ONE_LEAVES = st.tuples(st.just("arrive as one hangs up"), st.integers(0, 10))
OTHER = st.tuples(st.sampled_from(["leave", "hang up", "hang up at once", "turn"]), st.integers(0, 10))


@dataclass
class Scene:
    limiter: CountingLimiter
    asking: list[asyncio.Task[Pass]] = field(default_factory=list)
    running: list[Pass] = field(default_factory=list)

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        for task in [task for task in self.asking if task.done()]:
            self.asking.remove(task)
            if task.cancelled() or isinstance(task.exception(), RateLimited):
                continue
            self.running.append(task.result())

    def check(self) -> None:
        for limit, most in ((WIDE, 2), (MODEL, 1)):
            key = f"{limit.limit.id.hex}:{limit.subject.id}:c"
            assert sum(key in granted.wanted.place_keys for granted in self.running) <= most
        waiting = self.limiter.state()["waiting"]
        assert waiting == len(self.asking)
        assert waiting <= QUEUE
        if waiting:
            assert self.running  # nobody waits while all is free


async def ask(limiter: CountingLimiter, limits: tuple[object, ...], priority: Priority) -> Pass:
    gate = limiter.gate(limits)  # type: ignore[arg-type]
    granted = gate.enter_at_once(NO_TOKENS, priority) or await gate.enter(NO_TOKENS, priority)
    assert isinstance(granted, Pass)
    return granted


async def play(steps: list[tuple[object, ...]]) -> None:
    room: WaitingRoom[Pass] = WaitingRoom(QUEUE, 3600)
    limiter = CountingLimiter(LocalCounts(Clock()), None, room)
    async with limiting(limiter):
        scene = Scene(limiter)
        for step in steps:
            match step:
                case ("arrive", Priority() as priority, tuple() as limits):
                    scene.asking.append(asyncio.create_task(ask(limiter, limits, priority)))
                case ("arrive as one hangs up", int(which)) if scene.asking:
                    leaving = scene.asking[which % len(scene.asking)]
                    scene.asking.append(asyncio.create_task(ask(limiter, (WIDE,), Priority.HIGH)))
                    leaving.cancel()
                case ("leave", int(which)) if scene.running:
                    scene.running.pop(which % len(scene.running)).leave(0, 0)
                case ("hang up", int(which)) if scene.asking:
                    scene.asking[which % len(scene.asking)].cancel()
                case ("hang up at once", int(turns)) if scene.asking and scene.running:
                    scene.running.pop().leave(0, 0)
                    for _ in range(turns % 5):
                        await asyncio.sleep(0)
                    scene.asking[0].cancel()
            await scene.settle()
            scene.check()
        while scene.running or scene.asking:
            for granted in scene.running:
                granted.leave(0, 0)
            scene.running.clear()
            await scene.settle()
            assert scene.running or not scene.asking, "somebody waits for ever"
        assert limiter.state()["counted"] == 0


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(ARRIVAL, COMING_AS_ONE_LEAVES, OTHER), max_size=30))
def test_no_place_is_lost_and_none_given_twice(steps: list[tuple[object, ...]]) -> None:
    asyncio.run(play(steps))


async def test_a_seat_is_taken_from_one_who_gives_it_up_in_the_same_turn() -> None:
    two_run_and_three_wait: list[tuple[object, ...]] = [("arrive", Priority.NORMAL, (WIDE,))] * (2 + QUEUE)
    await play([*two_run_and_three_wait, ("arrive as one hangs up", QUEUE - 1)])
