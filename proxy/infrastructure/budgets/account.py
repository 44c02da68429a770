"""One budget's money as this process has it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from proxy.domain.access.scopes import EACH
from proxy.domain.budgets import Budget, Charge, Period
from proxy.infrastructure.persistence.rows import budget_subject

LEASE_SECONDS: Final = 600.0  # a holder that has not renewed its leases for so long is gone
_NEVER = datetime.min.replace(tzinfo=UTC)
TRUSTED_SECONDS: Final = 540.0  # after which it does not use them itself any more


class AccountKey(NamedTuple):
    """`subject_id` is empty but for budgets for EACH of a scope, which have an account for every subject."""

    budget_id: UUID
    subject_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database said of a budget at one moment, in picodollars.

    `own_booked` is what of `spent` this process has booked, as far as its lease tells: soft budgets have none, and then
    it is what the process itself knows. The process's own lease is not in `leased_elsewhere`.
    """

    amount: int
    spent: int
    leased_elsewhere: int
    holders_elsewhere: int
    own_booked: int


class Account:
    """Sums since the account was opened, all in picodollars.

    granted     leased from the database, less what was given back
    consumed    charged to requests that have ended
    booked      of that, what is in the database together with its row
    held        set aside for requests that run

    What the database has for the lease is granted - booked; what may be set aside here is granted - consumed - held.
    """

    def __init__(self, key: AccountKey, budget: Budget, now_seconds: float) -> None:
        self.key = key
        self.granted = self.consumed = self.booked = self.held = 0
        self.told_held = 0  # what the database was told of `held` last; -1 if it is to be told of the lease again
        self.standing: Standing | None = None
        self.consumed_then = 0  # of that, what is in the `spent` of `standing`
        self.put(budget)
        self.renewed_seconds = now_seconds
        self.used_seconds = now_seconds
        self.recalled_seconds = float("-inf")
        self.has_lease = False  # or may have one, of whose being granted no answer has come
        self.is_removed = False
        self._bucket = self._bucket_ends = _NEVER

    def put(self, budget: Budget) -> None:
        """What the budget is from now on."""
        self.budget = budget
        self.is_hard = budget.is_hard
        self.is_rolling = budget.window.period is Period.ROLLING  # nothing resets: what was known stays nearly true
        self._warns_at = -(-budget.amount_picodollars * budget.warn_percent // 100)
        self._know()

    @property
    def free(self) -> int:
        """What may be set aside now without asking the database."""
        return self.granted - self.consumed - self.held

    def is_trusted(self, now_seconds: float) -> bool:
        """Whether nobody else can have taken the lease for that of a dead process."""
        return now_seconds - self.renewed_seconds < TRUSTED_SECONDS

    def may_set_aside(self, amount: int, now_seconds: float) -> bool:
        """Whether so much may be set aside at once: always of a soft budget, or of one that is no more."""
        if not self.is_hard or self.is_removed:
            return True
        is_trusted = now_seconds - self.renewed_seconds < TRUSTED_SECONDS
        return is_trusted and self.granted - self.consumed - self.held >= amount

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs, and all that was charged is booked."""
        return self.held == 0 and self.booked == self.consumed

    def spent(self) -> int:
        """By all processes, as far as is known here."""
        return self._spent_then + self.consumed - self.consumed_then

    @property
    def is_warned_of(self) -> bool:
        """Whether the share that is warned of is spent."""
        return self.consumed >= self.warned_from

    def _know(self) -> None:
        """What follows from the budget and its standing: each request asks for it."""
        self._spent_then = self.standing.spent if self.standing else 0
        self.warned_from = self._warns_at - self._spent_then + self.consumed_then  # consumed, in picodollars

    def hold(self, amount: int, moment: datetime, now_seconds: float) -> Charge | None:
        """Sets aside; None, and nothing is, if `may_set_aside` (which is written out here) says no."""
        if (
            self.is_hard
            and not self.is_removed
            and (
                self.granted - self.consumed - self.held < amount
                or now_seconds - self.renewed_seconds >= TRUSTED_SECONDS
            )
        ):
            return None
        self.held += amount
        self.used_seconds = now_seconds
        bucket = self._bucket if self._bucket <= moment < self._bucket_ends else self.bucket(moment)
        budget_id, subject_id = self.key
        return Charge(budget_id, subject_id, bucket, amount)

    def bucket(self, moment: datetime) -> datetime:
        """Where what is spent now counts. It changes seldom, and is asked for with every request."""
        if not self._bucket <= moment < self._bucket_ends:
            window = self.budget.window
            self._bucket = window.bucket(moment)
            self._bucket_ends = window.resets_at(moment) or datetime.max.replace(tzinfo=moment.tzinfo)
            if not self.is_rolling:
                self.standing = None  # what was spent before counts no more
                self._know()
        return self._bucket

    def learn(self, standing: Standing) -> None:
        """What the database says now."""
        self.standing = standing
        self.consumed_then = standing.own_booked
        self._know()


def account_key(budget: Budget, subject_id: str) -> AccountKey:
    """Subjects that the spool shortens are shortened here, too."""
    return AccountKey(budget.id, budget_subject(subject_id) if budget.subject.id == EACH else "")
