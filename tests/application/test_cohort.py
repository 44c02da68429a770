"""Requests that stop at the ends of stages, so that others come as far."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from proxy.application.cohort import Cohort
from proxy.application.orchestrator import KernelOrchestrator
from proxy.domain.request_log import CostSource, RequestIntent, RequestStatus
from tests.application.conftest import FakeLedger, chat_request, complete
from tests.harness import FakeTime, Upstream, says


def of_several() -> Cohort:
    cohort = Cohort()
    for _ in range(10):
        cohort.began(16)
    assert cohort.has_several
    return cohort


def test_one_at_a_time_never_stops() -> None:
    cohort = Cohort()
    for _ in range(1000):
        cohort.began(1)
        assert not cohort.has_several


@pytest.mark.parametrize(("count", "has_several"), [(4, False), (8, True), (500, True)])
def test_those_who_go_with_several_others_do(count: int, has_several: bool) -> None:
    cohort = Cohort()
    for _ in range(100):
        cohort.began(count)
    assert cohort.has_several is has_several


def test_when_the_crowd_has_gone_nobody_stops() -> None:
    cohort = of_several()
    for _ in range(500):
        cohort.began(1)
    assert not cohort.has_several


def test_one_alone_among_large_cohorts_changes_little() -> None:
    cohort = of_several()
    for _ in range(10):
        cohort.began(1)
    assert cohort.has_several


async def test_who_stops_lets_the_others_come_as_far() -> None:
    cohort, passed = Cohort(), list[str]()

    async def go(name: str) -> None:
        for stage in range(3):
            passed.append(f"{name}{stage}")
            await cohort.on_its_way()

    await asyncio.gather(*map(go, "abc"))
    assert passed == [f"{name}{stage}" for stage in range(3) for name in "abc"]
    assert cohort.outward == 9


async def test_who_is_on_its_way_back_keeps_nobody_from_beginning() -> None:
    cohort = Cohort()
    await cohort.on_its_way_back()
    assert cohort.outward == 0


@dataclass
class NotingLedger(FakeLedger):
    """Notes among other events that a call begins."""

    events: list[str] = field(default_factory=list)

    def begin(self, intent: RequestIntent) -> None:
        self.events.append("a call is noted")
        super().begin(intent)


@pytest.mark.parametrize(("cohort", "together"), [(of_several(), True), (Cohort(), False)])
async def test_all_of_a_cohort_are_planned_before_the_first_is_called(
    orchestrator: KernelOrchestrator, upstream: Upstream, fake_time: FakeTime, cohort: Cohort, together: bool
) -> None:
    upstream.answer(says())
    ledger = NotingLedger()

    def clock() -> float:
        ledger.events.append("the time is asked")
        return fake_time.now

    asked = replace(orchestrator, cohort=cohort, ledger=ledger, clock=clock)
    await asyncio.gather(*(complete(asked, chat_request()) for _ in range(5)))
    assert (ledger.events.index("a call is noted") >= 5) is together
    assert len(ledger.rows) == len(upstream.bodies) == 5


@pytest.mark.parametrize("stages", [1, 2])
async def test_who_hangs_up_where_it_stops_before_the_call_pays_nothing(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger, stages: int
) -> None:
    upstream.answer(says())
    task = asyncio.ensure_future(complete(replace(orchestrator, cohort=of_several()), chat_request()))
    for _ in range(stages):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not upstream.bodies
    row = ledger.row
    assert (row.status, row.attempts, row.cost_source) == (RequestStatus.CLIENT_DISCONNECTED, 0, CostSource.NONE)
