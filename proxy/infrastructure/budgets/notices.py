"""What there is to tell of a budget, and which process tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from proxy.domain.budgets import Budget, Period, Window, usd
from proxy.domain.usage_report import plain_usd
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session_within

CLAIM_SECONDS: Final = 600.0  # after which what was not delivered is anybody's to tell
_TIMEOUT_SECONDS = 5.0
_KEPT_DAYS = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_OF_NOTICE = "budget_id = $1 AND subject_id = $2 AND period_start = $3 AND threshold_picodollars = $4"
# Whether another period's notice was told since then, or may be being told.
_TOLD_LATELY = """SELECT 1 FROM budget_notices
    WHERE budget_id = $1 AND subject_id = $2 AND period_start <> $3 AND threshold_picodollars = $4
    AND (delivered_at > $5 OR delivered_at IS NULL AND claimed_at > $6) LIMIT 1"""
_CLAIM = """INSERT INTO budget_notices (budget_id, subject_id, period_start, threshold_picodollars, claimed_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (budget_id, subject_id, period_start, threshold_picodollars)
    DO UPDATE SET claimed_at = excluded.claimed_at
        WHERE budget_notices.delivered_at IS NULL AND budget_notices.claimed_at <= $6
    RETURNING budget_id"""
_DELIVERED = f"UPDATE budget_notices SET delivered_at = $5 WHERE {_OF_NOTICE}"  # noqa: S608
_FORGET = """DELETE FROM budget_notices WHERE claimed_at < $1
    AND NOT EXISTS (SELECT 1 FROM budgets WHERE budgets.id = budget_id AND (period = $2 OR window_seconds >= $3))"""


@dataclass(frozen=True, slots=True)
class NoticeKey:
    """What is told once. A threshold is an amount of money: for a budget that is raised there is another one."""

    budget_id: UUID
    subject_id: str
    period_start: datetime
    threshold_picodollars: int

    @property
    def id(self) -> UUID:
        """The same in each process, and for each attempt: by it a receiver knows what it was told already."""
        return uuid5(self.budget_id, f"{self.subject_id}|{self.period_start.isoformat()}|{self.threshold_picodollars}")


@dataclass(frozen=True, slots=True)
class Notice:
    """A budget has passed a threshold: its warning share, or its whole amount.

    `subject_id` is empty but for budgets for EACH of a scope.
    """

    budget: Budget
    subject_id: str
    threshold_picodollars: int
    spent_picodollars: int
    moment: datetime

    @property
    def key(self) -> NoticeKey:
        start = _period_start(self.budget.window, self.moment)
        return NoticeKey(self.budget.id, self.subject_id, start, self.threshold_picodollars)

    def message(self) -> Mapping[str, Any]:
        """For the webhook; amounts are decimal text, as in the admin API."""
        budget, key = self.budget, self.key
        is_whole = self.threshold_picodollars >= budget.amount_picodollars
        resets_at = budget.window.resets_at(self.moment)
        return {
            "id": str(key.id),
            "event": "budget.exceeded" if is_whole else "budget.warning",
            "occurred_at": self.moment.isoformat(),
            "budget": {
                "id": str(budget.id),
                "name": budget.name,
                "scope": budget.subject.scope.value,
                "subject": self.subject_id or budget.subject.id,
                "amount_usd": plain_usd(budget.amount_usd),
                "period": budget.window.period.value,
                "window_seconds": budget.window.seconds,
                "hard": budget.is_hard,
                "warn_percent": budget.warn_percent,
            },
            "threshold_usd": plain_usd(usd(self.threshold_picodollars)),
            "spent_usd": plain_usd(usd(self.spent_picodollars)),
            "period_start": key.period_start.isoformat(),
            "resets_at": None if resets_at is None else resets_at.isoformat(),
        }


def notices_of(budget: Budget, subject_id: str, spent_picodollars: int, moment: datetime) -> Sequence[Notice]:
    """One for each threshold that is passed now, whether it was told before or not; none while nothing is spent."""
    amount = budget.amount_picodollars
    warning = -(-amount * budget.warn_percent // 100)
    return [
        Notice(budget, subject_id, threshold, spent_picodollars, moment)
        for threshold in sorted({warning, amount})
        if spent_picodollars >= max(threshold, 1)
    ]


def _period_start(window: Window, moment: datetime) -> datetime:
    """A rolling window has no beginning: its length, counted from 1970, stands for a period."""
    if window.period is Period.ROLLING and window.seconds is not None:
        length = timedelta(seconds=window.seconds)
        return _EPOCH + (moment - _EPOCH) // length * length
    return window.bucket(moment)


class NoticeClaims:
    """The table of notices. Everything raises DATABASE_ERRORS."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, key: NoticeKey, now: datetime, rolling_seconds: int | None = None) -> bool:
        """Whether the caller is to tell it: nobody has, nor may another process still be at it.

        Of a rolling window, whose length is given, also nobody may have told another period's notice in its length.
        """
        before = now - timedelta(seconds=CLAIM_SECONDS)
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            if rolling_seconds is not None:
                since = now - timedelta(seconds=rolling_seconds)
                if await to.fetch(_TOLD_LATELY, *_arguments(key), since, before):
                    return False
            return bool(await to.fetch(_CLAIM, *_arguments(key), now, before))

    async def delivered(self, key: NoticeKey, now: datetime) -> None:
        """It was told: nobody is to tell it again."""
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute(_DELIVERED, *_arguments(key), now)

    async def forget_the_past(self, now: datetime) -> None:
        """What was told long ago, of periods that are over: not of totals, nor of rolling windows as long as that."""
        kept = timedelta(days=_KEPT_DAYS)
        async with session_within(self._database, _TIMEOUT_SECONDS) as to:
            await to.execute(_FORGET, now - kept, Period.TOTAL.value, int(kept.total_seconds()))


def _arguments(key: NoticeKey) -> tuple[object, ...]:
    return str(key.budget_id), key.subject_id, key.period_start, key.threshold_picodollars
