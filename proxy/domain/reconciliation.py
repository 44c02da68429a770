"""What is known of a row before and after the provider is asked what it billed, and when to ask again."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from proxy.domain.request_log import CostSource, UsageSource
from proxy.domain.values import CostAmount, TokenCount

GIVE_UP_AFTER: Final = timedelta(hours=24)
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=5), timedelta(hours=6)
_MOST_DOUBLINGS = 10
_PERCENT_STEP = Decimal("0.01")


class Outcome(StrEnum):
    """What came of asking for a row."""

    BILLED = "billed"
    NOT_FOUND = "not_found"  # the provider does not know the generation (yet)
    GIVEN_UP = "given_up"  # it has not known it for a day
    NO_ANSWER = "no_answer"  # nothing that could be read; that is not the row's fault


@dataclass(frozen=True, slots=True)
class UnsettledRow:
    """A booked request whose cost is not known for certain. `estimated` is None where it could not be priced."""

    id: UUID
    timestamp: datetime
    model: str
    generation_id: str
    usage_source: UsageSource
    cost_source: CostSource
    estimated: CostAmount | None = None
    reported: CostAmount | None = None
    attempts: int = 0
    missing_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What the provider billed for a generation, and the tokens that it counted with the model's own tokenizer."""

    cost: CostAmount
    input_tokens: TokenCount | None = None
    output_tokens: TokenCount | None = None

    def tokens_for(self, row: UnsettledRow) -> tuple[TokenCount, TokenCount] | None:
        """The counts that replace the row's; None when the row's were reported, or the provider gives none."""
        if row.usage_source is UsageSource.REPORTED or self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens, self.output_tokens


def outcome_of_absence(row: UnsettledRow, now: datetime) -> Outcome:
    """What it means that the provider does not know the row's generation."""
    missing_since = row.missing_since or now
    return Outcome.GIVEN_UP if now - missing_since >= GIVE_UP_AFTER else Outcome.NOT_FOUND


def pause_after(attempts: int) -> timedelta:
    """How long a row that was asked for in vain is left alone: 5 minutes, twice as long each time, at most 6 hours."""
    doublings = min(max(attempts - 1, 0), _MOST_DOUBLINGS)
    return min(_FIRST_PAUSE * (1 << doublings), _LONGEST_PAUSE)


@dataclass(slots=True)
class Drift:
    """Sums over the rows that were asked for. Estimates count only where there is a bill beside them."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    estimated_usd: Decimal = Decimal(0)
    billed_usd: Decimal = Decimal(0)
    billed_without_estimate_usd: Decimal = Decimal(0)

    def count(self, row: UnsettledRow, outcome: Outcome, bill: Bill | None = None) -> None:
        """Add a row and what came of it."""
        self.outcomes[outcome] += 1
        if bill is None:
            return
        self.billed_usd += bill.cost.usd
        if row.estimated is None:
            self.billed_without_estimate_usd += bill.cost.usd
        else:
            self.estimated_usd += row.estimated.usd

    def add(self, other: Drift) -> None:
        """Add the other's rows too."""
        self.outcomes.update(other.outcomes)
        self.estimated_usd += other.estimated_usd
        self.billed_usd += other.billed_usd
        self.billed_without_estimate_usd += other.billed_without_estimate_usd

    @property
    def asked(self) -> int:
        return self.outcomes.total()

    @property
    def unanswered(self) -> int:
        """Rows for which there is no bill."""
        return self.asked - self.outcomes[Outcome.BILLED]

    def percent(self) -> Decimal | None:
        """How much more (or less) was billed than estimated, over rows with both; None when nothing was estimated."""
        if not self.estimated_usd:
            return None
        comparable = self.billed_usd - self.billed_without_estimate_usd
        return ((comparable - self.estimated_usd) * 100 / self.estimated_usd).quantize(_PERCENT_STEP)


@dataclass(slots=True)
class ReconcileReport:
    """What runs have done so far; whole also when one ends early, and then `stopped` says why."""

    models: defaultdict[str, Drift] = field(default_factory=lambda: defaultdict(Drift))
    stopped: str | None = None
    to_ask: int = 0
    ask_again_later: int = 0
    given_up: int = 0
    cannot_be_asked: Counter[str] = field(default_factory=Counter)

    def total(self) -> Drift:
        """All models together."""
        total = Drift()
        for drift in self.models.values():
            total.add(drift)
        return total
