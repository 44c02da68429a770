"""Asking the provider what it billed for rows whose cost is unknown or estimated, and booking the answers.

Each answer is booked before the next question, so a run may end anywhere: the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from proxy.domain.reconciliation import Bill, Outcome, ReconcileReport, UnsettledRow, outcome_of_absence

_PAGE_ROWS = 200
_MOST_AT_ONCE = 8
_FAILURES_IN_A_ROW = 3
_LONGEST_WAIT_SECONDS = 120.0


class ProviderRefused(Exception):
    """The provider will not answer this key, whatever the row; the message says what to do."""


class ProviderBusy(Exception):
    """The provider asks to be left alone for a while."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NoAnswer(Exception):
    """The provider gave no answer that can be read; `about_the_row` when it would answer for another one."""

    def __init__(self, message: str, *, about_the_row: bool = False) -> None:
        super().__init__(message)
        self.about_the_row = about_the_row


class BillSource(Protocol):
    """The provider's memory of what it has billed."""

    async def bill(self, generation_id: str) -> Bill | None:
        """None while it does not know the generation, or not its cost.

        Raises ProviderRefused, ProviderBusy or NoAnswer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """Which rows to ask for: from `since` (included) to `until` (excluded); None is no bound.

    With `again`, also those whose turn has not come yet or that were given up.
    """

    since: datetime | None = None
    until: datetime | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Census:
    """How many rows there are to ask for now, later, and no more; and by status those that cannot be asked for."""

    to_ask: int
    ask_again_later: int
    given_up: int
    cannot_be_asked: Mapping[str, int]


class UnsettledRows(Protocol):
    """The ledger's rows of uncertain cost, and what is known of asking for them."""

    async def census(self, search: Search, now: datetime) -> Census: ...

    async def find(
        self, search: Search, now: datetime, after: UnsettledRow | None, limit: int
    ) -> Sequence[UnsettledRow]:
        """The next rows to ask for, the oldest first, that come after that one."""
        ...

    async def book(self, row: UnsettledRow, bill: Bill, now: datetime) -> None:
        """Make the bill the row's cost; once a bill is booked, another changes nothing."""
        ...

    async def postpone(self, row: UnsettledRow, outcome: Outcome, now: datetime) -> None:
        """Remember that the row was asked for in vain."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to ask, and how long to wait (in turn) when the provider does not answer before giving in."""

    per_second: float
    waits_seconds: Sequence[float] = ()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic


class _Turns:
    """Gives out moments to ask at, evenly spaced."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._interval = 1 / pace.per_second
        self._next = pace.clock()

    async def mine(self) -> None:
        now = self._pace.clock()
        at = max(now, self._next)
        self._next = at + self._interval
        if at > now:
            await self._pace.sleep(at - now)

    def hold(self, seconds: float) -> None:
        """Let nobody ask for that long."""
        self._next = max(self._next, self._pace.clock() + seconds)


class Reconciliation:
    """The use case, for one provider. One run at a time. Where there are several, `name` says which one gave in."""

    def __init__(
        self,
        rows: UnsettledRows,
        provider: BillSource,
        pace: Pace,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        name: str | None = None,
    ) -> None:
        self._name = name
        self._rows = rows
        self._provider = provider
        self._pace = pace
        self._now = now
        self._turns = _Turns(pace)
        self._failures_in_a_row = 0
        self._ending = False
        self._has_stopped = False

    def stop(self) -> None:
        """Let the run end after the rows that are being asked for."""
        self._ending = True

    async def run(
        self,
        search: Search,
        report: ReconcileReport,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        on_progress: Callable[[ReconcileReport], None] = lambda _: None,
    ) -> None:
        """Ask for the rows and book the answers (unless `dry_run`), adding what has been done so far to `report`.

        Trouble with the provider ends the run and is told in the report; that with the rows' database is raised.
        """
        started = self._now()
        census = await self._rows.census(search, started)
        left, last = census.to_ask if limit is None else min(limit, census.to_ask), None
        report.to_ask += left
        report.ask_again_later += census.ask_again_later
        report.given_up += census.given_up
        report.cannot_be_asked.update(census.cannot_be_asked)
        self._failures_in_a_row, self._has_stopped = 0, False
        on_progress(report)
        while left > 0 and not self._is_over():
            page = await self._rows.find(search, started, last, min(left, _PAGE_ROWS))
            if not page:
                break
            waiting = iter(page)
            at_once = min(_MOST_AT_ONCE, max(1, round(self._pace.per_second)))
            results = await asyncio.gather(
                *(self._work(waiting, report, on_progress, dry_run=dry_run) for _ in range(at_once)),
                return_exceptions=True,
            )
            for result in results:
                if result is not None:
                    raise result
            left, last = left - len(page), page[-1]

    def _is_over(self) -> bool:
        return self._ending or self._has_stopped

    def _give_in(self, reason: str, report: ReconcileReport) -> None:
        if self._has_stopped:
            return
        self._has_stopped = True
        told = reason if self._name is None else f"{self._name}: {reason}"
        report.stopped = told if report.stopped is None else f"{report.stopped}; {told}"

    async def _work(
        self,
        waiting: Iterator[UnsettledRow],
        report: ReconcileReport,
        on_progress: Callable[[ReconcileReport], None],
        *,
        dry_run: bool,
    ) -> None:
        for row in waiting:
            try:
                answered, bill = await self._ask(row)
            except (ProviderRefused, ProviderBusy) as problem:
                self._give_in(str(problem), report)
                return
            if not answered:
                return
            await self._settle(row, bill, report, dry_run=dry_run)
            on_progress(report)

    async def _ask(self, row: UnsettledRow) -> tuple[bool, Bill | NoAnswer | None]:
        """Whether the row was asked for, and the bill; None if the provider knows of none."""
        waits = iter(self._pace.waits_seconds)
        while True:
            await self._turns.mine()
            if self._is_over():
                return False, None
            try:
                return True, await self._provider.bill(row.generation_id)
            except NoAnswer as problem:
                wait = next(waits, None)
                if wait is None or problem.about_the_row:
                    return True, problem
            except ProviderBusy as problem:
                wait = next(waits, None)
                asked_for = problem.retry_after_seconds or 0.0
                if wait is None or asked_for > _LONGEST_WAIT_SECONDS:
                    raise
                wait = max(wait, asked_for)
            self._turns.hold(wait)

    async def _settle(
        self, row: UnsettledRow, bill: Bill | NoAnswer | None, report: ReconcileReport, *, dry_run: bool
    ) -> None:
        now = self._now()
        if isinstance(bill, Bill):
            self._failures_in_a_row = 0
            if not dry_run:
                await self._rows.book(row, bill, now)
            report.models[row.model].count(row, Outcome.BILLED, bill)
            return
        if isinstance(bill, NoAnswer):
            outcome = Outcome.NO_ANSWER
            self._failures_in_a_row += not bill.about_the_row
            if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
                self._give_in(f"{bill} ({self._failures_in_a_row} rows in a row)", report)
        else:
            self._failures_in_a_row = 0
            outcome = outcome_of_absence(row, now)
        if not dry_run:
            await self._rows.postpone(row, outcome, now)
        report.models[row.model].count(row, outcome)
