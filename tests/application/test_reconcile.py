"""The order of asking and booking: pace, back-off, ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import pytest

from proxy.application.reconcile import (
    Census,
    NoAnswer,
    Pace,
    ProviderBusy,
    ProviderRefused,
    Reconciliation,
    Search,
)
from proxy.domain.reconciliation import Bill, Outcome, ReconcileReport, UnsettledRow
from proxy.domain.request_log import CostSource, UsageSource
from tests.generations import NOW, usd
from tests.harness import FakeTime

BILL = Bill(usd("0.001"))


def row(number: int) -> UnsettledRow:
    return UnsettledRow(
        UUID(int=number), NOW, "a/one", f"gen-{number}", UsageSource.ESTIMATED, CostSource.COMPUTED, usd("0.001")
    )


@dataclass
class Rows:
    """Rows in memory; those that were booked or postponed are not found again."""

    rows: list[UnsettledRow]
    booked: list[str] = field(default_factory=list)
    postponed: list[tuple[str, Outcome]] = field(default_factory=list)

    async def census(self, search: Search, now: datetime) -> Census:
        return Census(len(self.rows), 0, 0, {})

    async def find(
        self, search: Search, now: datetime, after: UnsettledRow | None, limit: int
    ) -> Sequence[UnsettledRow]:
        done = {*self.booked, *(name for name, _ in self.postponed)}
        return [r for r in self.rows if r.generation_id not in done and (after is None or r.id > after.id)][:limit]

    async def book(self, row: UnsettledRow, bill: Bill, now: datetime) -> None:
        self.booked.append(row.generation_id)

    async def postpone(self, row: UnsettledRow, outcome: Outcome, now: datetime) -> None:
        self.postponed.append((row.generation_id, outcome))


@dataclass
class Provider:
    """Answers by id, in turn, and the last one ever after; a bill if nothing is said."""

    time: FakeTime
    answers: dict[str, list[Bill | Exception | None]] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)

    async def bill(self, generation_id: str) -> Bill | None:
        self.asked.append((generation_id, self.time.now))
        answers = self.answers.get(generation_id, [BILL])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Run:
    """A use case over `count` rows, one question at a time."""

    def __init__(self, count: int, per_second: float = 1.0, waits: Sequence[float] = (1.0, 2.0)) -> None:
        self.time = FakeTime()
        self.rows = Rows([row(number) for number in range(count)])
        self.provider = Provider(self.time)
        self.report = ReconcileReport()
        pace = Pace(per_second, waits, self.time.sleep, lambda: self.time.now)
        self.reconciliation = Reconciliation(self.rows, self.provider, pace, lambda: NOW)

    async def run(self, limit: int | None = None, *, dry_run: bool = False) -> ReconcileReport:
        await self.reconciliation.run(Search(), self.report, limit=limit, dry_run=dry_run)
        return self.report

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.provider.asked]


async def test_questions_are_evenly_spaced() -> None:
    run = Run(5, per_second=0.5)
    await run.run()
    assert [at for _, at in run.provider.asked] == [1000.0, 1002.0, 1004.0, 1006.0, 1008.0]


async def test_all_rows_are_asked_for_once_over_many_pages_and_several_at_a_time() -> None:
    run = Run(450, per_second=50)
    report = await run.run()
    assert Counter(run.asked) == Counter(r.generation_id for r in run.rows.rows)
    assert (report.total().asked, len(run.rows.booked)) == (450, 450)


async def test_a_limit_ends_the_run_over_pages_too() -> None:
    run = Run(450)
    await run.run(limit=203)
    assert len(run.asked) == len(run.rows.booked) == 203


async def test_a_dry_run_asks_and_books_nothing() -> None:
    run = Run(250)
    run.provider.answers["gen-1"] = [None]
    report = await run.run(dry_run=True)
    assert len(run.asked) == 250
    assert (run.rows.booked, run.rows.postponed) == ([], [])
    assert report.total().outcomes == {Outcome.BILLED: 249, Outcome.NOT_FOUND: 1}


async def test_a_refusal_ends_the_run_and_keeps_what_was_booked() -> None:
    run = Run(5)
    run.provider.answers["gen-2"] = [ProviderRefused("no credits")]
    report = await run.run()
    assert report.stopped == "no credits"
    assert run.asked == ["gen-0", "gen-1", "gen-2"]
    assert run.rows.booked == ["gen-0", "gen-1"]
    assert run.rows.postponed == []
    assert report.total().asked == 2


async def test_a_busy_provider_is_given_the_time_that_it_asks_for() -> None:
    run = Run(2)
    run.provider.answers["gen-0"] = [ProviderBusy("busy", 30.0), ProviderBusy("busy"), BILL]
    report = await run.run()
    assert run.provider.asked == [("gen-0", 1000.0), ("gen-0", 1030.0), ("gen-0", 1032.0), ("gen-1", 1033.0)]
    assert report.stopped is None
    assert run.rows.booked == ["gen-0", "gen-1"]


@pytest.mark.parametrize(
    ("answers", "times"), [([ProviderBusy("busy")], 3), ([ProviderBusy("busy", 3600.0)], 1)], ids=["always", "too long"]
)
async def test_a_provider_that_stays_busy_ends_the_run_and_the_row_is_not_blamed(
    answers: list[Bill | Exception | None], times: int
) -> None:
    run = Run(3)
    run.provider.answers["gen-1"] = answers
    report = await run.run()
    assert report.stopped == "busy"
    assert run.asked == ["gen-0"] + ["gen-1"] * times
    assert (run.rows.booked, run.rows.postponed) == (["gen-0"], [])


async def test_a_row_that_makes_the_provider_fail_is_put_off_and_the_others_go_on() -> None:
    run = Run(3)
    run.provider.answers["gen-0"] = [NoAnswer("HTTP 500")]
    report = await run.run()
    assert run.asked == ["gen-0"] * 3 + ["gen-1", "gen-2"]
    assert run.rows.postponed == [("gen-0", Outcome.NO_ANSWER)]
    assert run.rows.booked == ["gen-1", "gen-2"]
    assert report.stopped is None


async def test_an_outage_ends_the_run_after_three_rows() -> None:
    run = Run(9)
    run.provider.answers = {f"gen-{number}": [NoAnswer("HTTP 503")] for number in range(9)}
    report = await run.run()
    assert report.stopped == "HTTP 503 (3 rows in a row)"
    assert len(run.rows.postponed) == 3


async def test_rows_that_the_provider_finds_fault_with_are_no_outage_and_are_not_asked_twice() -> None:
    run = Run(9)
    for number in range(8):
        run.provider.answers[f"gen-{number}"] = [NoAnswer("HTTP 400", about_the_row=True)]
    report = await run.run()
    assert len(run.asked) == 9
    assert (report.stopped, run.rows.booked) == (None, ["gen-8"])


async def test_it_can_be_told_to_end() -> None:
    run = Run(5)
    run.reconciliation.stop()
    await run.run()
    assert run.asked == []


async def test_trouble_with_the_database_is_raised_and_what_was_done_is_told() -> None:
    class Full(Rows):
        async def book(self, row: UnsettledRow, bill: Bill, now: datetime) -> None:
            if len(self.booked) == 2:
                raise OSError("no space left")
            await super().book(row, bill, now)

    run = Run(5)
    rows = Full(run.rows.rows)
    reconciliation = Reconciliation(rows, run.provider, Pace(1.0, (), run.time.sleep, lambda: run.time.now))
    with pytest.raises(OSError, match="no space left"):
        await reconciliation.run(Search(), run.report)
    assert run.report.total().asked == len(rows.booked) == 2
