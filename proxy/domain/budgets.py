"""Budgets: how much may be spent, by whom, in which time; and what a request sets aside before it is sent.

Money is counted in whole picodollars (1e-12 USD), so that sums are exact on both database engines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from proxy.domain.access.scopes import Subject
from proxy.domain.errors import InvalidValue

PICODOLLARS_PER_USD: Final = 10**12
_PER_USD: Final = Decimal(PICODOLLARS_PER_USD)  # a whole number would be turned into one with each multiplication
MOST_USD: Final = Decimal(9_000_000)  # in picodollars it fits 63 bits
MOST_PICODOLLARS: Final = int(MOST_USD) * PICODOLLARS_PER_USD
_ROLLING_BUCKETS = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def picodollars(usd: Decimal) -> int:
    """Rounded up: what is set aside is never too little. More than any budget can have is as much as that."""
    return math.ceil(usd * _PER_USD) if usd < MOST_USD else MOST_PICODOLLARS


def charged_picodollars(usd: Decimal) -> int:
    """What a cost is charged: rounded as the ledger's row is, so that budgets and reports agree to the last digit."""
    return round(usd * _PER_USD) if usd < MOST_USD else MOST_PICODOLLARS


def usd(amount_picodollars: int) -> Decimal:
    return Decimal(amount_picodollars) / PICODOLLARS_PER_USD


class Period(StrEnum):
    """When a budget begins anew. Calendar periods are UTC; weeks begin on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"  # never
    ROLLING = "rolling"  # what was spent in the last so many seconds counts


@dataclass(frozen=True, slots=True)
class Window:
    """A period; `seconds` is the length of a rolling one."""

    period: Period
    seconds: int | None = None

    def __post_init__(self) -> None:
        if (self.period is Period.ROLLING) != (self.seconds is not None):
            raise InvalidValue("A rolling window, and no other, has a length in seconds")
        if self.seconds is not None and self.seconds < _ROLLING_BUCKETS:
            raise InvalidValue(f"A rolling window has at least {_ROLLING_BUCKETS} seconds")

    def bucket(self, moment: datetime) -> datetime:
        """The start of the part of time under which what is spent now is kept: the period, or a 60th of a window."""
        day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        match self.period:
            case Period.TOTAL:
                return _EPOCH
            case Period.HOUR:
                return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            case Period.DAY:
                return day
            case Period.WEEK:
                return day - timedelta(days=day.weekday())
            case Period.MONTH:
                return day.replace(day=1)
            case Period.ROLLING:
                step = timedelta(seconds=(self.seconds or 0) / _ROLLING_BUCKETS)
                return _EPOCH + (moment - _EPOCH) // step * step

    def counts_since(self, now: datetime) -> datetime:
        """The first bucket whose spending counts now. Of a rolling window the oldest one counts to its end."""
        if self.seconds is None:
            return self.bucket(now)
        return self.bucket(now - timedelta(seconds=self.seconds))

    def resets_at(self, now: datetime) -> datetime | None:
        """When there is room again at the latest (a rolling window: when its oldest part leaves); None for TOTAL."""
        start = self.bucket(now)
        match self.period:
            case Period.TOTAL:
                return None
            case Period.HOUR:
                return start + timedelta(hours=1)
            case Period.DAY:
                return start + timedelta(days=1)
            case Period.WEEK:
                return start + timedelta(days=7)
            case Period.MONTH:
                return (start + timedelta(days=31)).replace(day=1)
            case Period.ROLLING:
                return start + timedelta(seconds=(self.seconds or 0) / _ROLLING_BUCKETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `amount_usd` in a window. A hard one refuses what does not fit; a soft one warns, and tells a webhook.

    `warn_percent` is the share of the amount from which on answers carry a warning, also of a hard budget.
    """

    id: UUID
    name: str
    subject: Subject
    amount_usd: Decimal
    window: Window
    is_hard: bool = True
    warn_percent: int = 80

    def __post_init__(self) -> None:
        if not 0 <= self.amount_usd <= MOST_USD:
            raise InvalidValue(f"A budget is between 0 and {MOST_USD} USD")
        if not 1 <= self.warn_percent <= 100:  # noqa: PLR2004
            raise InvalidValue("warn_percent is between 1 and 100")

    @property
    def amount_picodollars(self) -> int:
        return int(self.amount_usd * PICODOLLARS_PER_USD)


class Charge(NamedTuple):
    """What one request is charged to one budget, or has set aside there: part of its row in the spool.

    `subject_id` tells the subjects of a budget for EACH of a scope apart. `bucket` is when it counts.
    """

    budget_id: UUID
    subject_id: str
    bucket: datetime
    picodollars: int
