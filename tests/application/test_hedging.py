"""Asking a second deployment when the first is slow: the faster answer counts, the other call is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import pytest

from proxy.application.attempts import Attempt
from proxy.domain.errors import AllProvidersFailed, PermanentUpstreamError, TransientUpstreamError
from tests.application.test_attempts import FakeDeployment, Scene, candidate, unavailable

SLOW, FAST = 30.0, 0.0


class Race:
    """Deployments that take their time, `x/a` one of provider x; `cancelled` notes whose call was ended."""

    def __init__(self, seconds: dict[str, float], errors: Mapping[str, Exception] = MappingProxyType({})) -> None:
        self.scene = Scene()
        self.cancelled: list[str] = []
        self.begun: list[str] = []
        self.discarded: list[str] = []
        self.hedged: list[str] = []
        self._seconds = seconds
        self._errors = errors

    async def perform(self, attempt: Attempt) -> str:
        name = attempt.deployment.name
        self.begun.append(name)
        try:
            await asyncio.sleep(self._seconds[name])
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if name in self._errors:
            raise self._errors[name]
        return name

    async def discard(self, answer: str) -> None:
        self.discarded.append(answer)

    async def run(self, hedge_seconds: float = 0.01) -> str:
        candidates = [candidate(name, provider=name.rpartition("/")[0] or name) for name in self._seconds]
        walk = self.scene.walk(candidates, hedge_seconds=hedge_seconds, perform=self.perform, discard=self.discard)
        try:
            return await walk.first_answer()
        finally:
            self.hedged = [attempt.deployment.name for attempt in walk.attempts if attempt.is_hedge]

    def inside(self) -> int:
        return sum(each.inside for each in self.scene.deployments.values())


async def test_a_fast_answer_asks_nobody_else() -> None:
    race = Race({"a": FAST, "b": FAST})
    assert await race.run(hedge_seconds=5) == "a"
    assert (race.begun, race.hedged) == (["a"], [])


async def test_the_second_is_asked_when_the_first_is_slow_and_the_loser_is_cancelled() -> None:
    race = Race({"a": SLOW, "b": FAST, "c": FAST})
    assert await race.run() == "b"
    assert (race.begun, race.hedged, race.cancelled) == (["a", "b"], ["b"], ["a"])
    assert race.inside() == 0


async def test_the_first_may_still_win() -> None:
    race = Race({"a": 0.05, "b": SLOW})
    assert await race.run() == "a"
    assert (race.hedged, race.cancelled, race.inside()) == (["b"], ["b"], 0)


async def test_a_failure_of_one_leaves_the_race_to_the_other() -> None:
    race = Race({"a": 0.1, "b": FAST}, {"b": unavailable()})
    assert await race.run() == "a"
    assert race.cancelled == []


async def test_a_defect_in_a_race_that_goes_on_is_told(caplog: pytest.LogCaptureFixture) -> None:
    defect = RuntimeError("a defect of ours")
    race = Race({"a": 0.1, "b": FAST}, {"b": defect})
    assert await race.run() == "a"
    assert [(each.message, each.exc_info and each.exc_info[1]) for each in caplog.records] == [("defect", defect)]


async def test_a_defect_at_the_moment_of_the_other_s_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Together(Race):
        async def perform(self, attempt: Attempt) -> str:
            self.begun.append(attempt.deployment.name)
            if len(self.begun) == 1:
                await both_are_there.wait()
                return attempt.deployment.name
            both_are_there.set()
            await asyncio.sleep(0)
            raise RuntimeError("a defect of ours")

    both_are_there = asyncio.Event()
    race = Together({"a": FAST, "b": FAST})
    assert await race.run() == "a"
    assert [each.message for each in caplog.records] == ["defect"]


async def test_a_failure_that_the_race_outlives_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    assert await Race({"a": 0.05, "b": FAST}, {"b": unavailable()}).run() == "a"
    assert await Race({"a": SLOW, "b": FAST}).run() == "b"
    assert caplog.records == []


async def test_when_both_fail_the_next_is_asked() -> None:
    race = Race({"a": 0.05, "b": 0.05, "c": FAST}, {"a": unavailable(), "b": unavailable()})
    assert await race.run() == "c"
    assert race.begun == ["a", "b", "c"]


async def test_what_the_second_is_refused_keeps_its_own_provider_from_being_asked_again() -> None:
    refused = PermanentUpstreamError("the key is not good", status=401)
    race = Race({"x/a": 0.05, "y/b": 0.1, "y/c": FAST, "x/d": FAST}, {"x/a": unavailable(), "y/b": refused})
    assert await race.run() == "x/d"
    assert race.begun == ["x/a", "y/b", "x/d"]


async def test_when_all_fail_all_reasons_are_told() -> None:
    race = Race({"a": 0.05, "b": FAST}, {"a": unavailable(500), "b": unavailable(429)})
    with pytest.raises(AllProvidersFailed) as raised:
        await race.run()
    assert [error.status for error in raised.value.failures if isinstance(error, TransientUpstreamError)] == [500, 429]


async def test_an_answer_that_comes_at_the_same_moment_is_discarded() -> None:
    class Together(Race):
        """The second's answer comes with the first's."""

        async def perform(self, attempt: Attempt) -> str:
            self.begun.append(attempt.deployment.name)
            if len(self.begun) == 1:
                await both_are_there.wait()
            both_are_there.set()
            return attempt.deployment.name

    both_are_there = asyncio.Event()
    race = Together({"a": FAST, "b": FAST})
    first = await race.run()
    assert sorted([first, *race.discarded]) == ["a", "b"]


async def test_a_client_that_hangs_up_ends_both_calls() -> None:
    race = Race({"a": SLOW, "b": SLOW})
    running = asyncio.create_task(race.run())
    while len(race.begun) < 2:
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(race.cancelled) == ["a", "b"]
    assert race.inside() == 0


async def test_a_client_that_hangs_up_while_the_loser_is_being_ended_leaves_no_answer_open() -> None:
    """The winner's stream would keep its connection, and its place at the deployment, for ever."""

    class Lingering(Race):
        async def perform(self, attempt: Attempt) -> str:
            try:
                return await super().perform(attempt)
            except asyncio.CancelledError:
                await asyncio.sleep(0.05)
                raise

    race = Lingering({"a": SLOW, "b": FAST})
    running = asyncio.create_task(race.run())
    while not race.cancelled:
        await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert race.discarded == ["b"]


async def test_a_hedge_takes_from_the_retry_budget() -> None:
    race = Race({"a": 0.05, "b": FAST})
    race.scene.deployments["b"] = FakeDeployment("b", retries_left=0)
    assert await race.run() == "a"
    assert race.begun == ["a"]


async def test_a_deployment_that_rests_is_no_rival() -> None:
    race = Race({"a": 0.05, "b": FAST})
    candidates = [candidate("a"), replace(candidate("b"), must_rest=True)]
    walk = race.scene.walk(candidates, hedge_seconds=0.01, perform=race.perform)
    assert await walk.first_answer() == "a"
    assert race.begun == ["a"]
