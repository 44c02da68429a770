"""What a caller may use: its rate limits and its budgets, and those who count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from proxy.domain.access.scopes import Subject
from proxy.domain.budgets import Budget, Charge
from proxy.domain.rate_limits import Priority, RateLimit, TokenEstimate


class AppliedLimit(NamedTuple):
    """A rate limit, and the one subject of it that a request counts for."""

    limit: RateLimit
    subject: Subject


class AppliedBudget(NamedTuple):
    """A budget, and the one subject of it that a request counts for."""

    budget: Budget
    subject: Subject


class RatePass(Protocol):
    """What a request has taken of its rate limits. `headers` are OpenAI's `x-ratelimit-*` for its answer."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def is_counted(self) -> bool:
        """Whether what the request uses in the end changes nothing, so that nobody need say when it ends."""
        ...

    def leave(self, input_tokens: int, output_tokens: int) -> None:
        """The request has ended: its place is free, and what it used is counted in the place of the estimate."""
        ...


class RateGate(Protocol):
    """The rate limits of one caller's requests."""

    def enter_at_once(self, estimate: TokenEstimate, priority: Priority) -> RatePass | None:
        """As `enter`, if that can be said without waiting; else None, and nothing is taken."""
        ...

    async def enter(self, estimate: TokenEstimate, priority: Priority) -> RatePass:
        """Take one request, its tokens and a place of all of them, or nothing of any. Raises RateLimited."""
        ...


class RateLimiter(Protocol):
    """Counts requests, tokens and places."""

    def gate(self, limits: Sequence[AppliedLimit]) -> RateGate:
        """For who counts for all of these limits. It may be kept."""
        ...


class BudgetHold(Protocol):
    """What one request has set aside in its budgets: `charges`, one for each of them."""

    @property
    def charges(self) -> Sequence[Charge]: ...

    def settle(self, charged: Sequence[Charge]) -> None:
        """The request is booked: give back what was set aside. `charged` is one for each budget, as in the request's
        row; empty if nothing is charged."""
        ...

    def warning(self) -> str | None:
        """Names those of the budgets that are spent beyond their warning, for `x-gateway-budget-warning`."""
        ...


class Purse(Protocol):
    """The budgets that pay for one caller's requests."""

    def set_aside_at_once(self, amount_picodollars: int, moment: datetime) -> BudgetHold | None:
        """As `set_aside`, if enough is leased; else None, and nothing is set aside."""
        ...

    async def set_aside(self, amount_picodollars: int, moment: datetime) -> BudgetHold:
        """Set the amount aside in all of the budgets, or in none.

        Raises:
            BudgetExceeded: a hard budget has not that much
            NotServing: a hard budget's lease is used up, and the database does not answer
        """
        ...

    def warning(self) -> str | None:
        """As BudgetHold has it, for a request that holds nothing."""
        ...


class BudgetBook(Protocol):
    """The budgets' money as this process has it: leased from the database in slices, set aside here."""

    def purse(self, budgets: Sequence[AppliedBudget]) -> Purse:
        """For who pays with all of these budgets. It may be kept."""
        ...


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Rules that do not come with a principal: those for the gateway, its models and end users; and model groups."""

    budgets: Sequence[Budget] = ()
    limits: Sequence[RateLimit] = ()
    model_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
