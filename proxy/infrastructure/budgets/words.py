"""What clients are told of budgets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from proxy.domain.budgets import usd
from proxy.domain.errors import BudgetExceeded
from proxy.infrastructure.budgets.account import Account, Standing

_TOLD_CHARACTERS = 80
_SOON_SECONDS = 1.0


def warning_of(accounts: Sequence[Account]) -> str | None:
    """Those whose warning share is spent; None if it is of none."""
    warned_of = [_told(account) for account in accounts if account.is_warned_of]
    return ", ".join(warned_of) if warned_of else None


def _told(account: Account) -> str:
    name = "".join(c if c.isascii() and c.isprintable() and c != "," else "?" for c in account.budget.name)
    spent, amount = usd(account.spent()), account.budget.amount_usd
    return f"{name[:_TOLD_CHARACTERS]}; spent={spent:f}; amount={amount:f}"


def exceeded(account: Account, amount: int, standing: Standing) -> BudgetExceeded:
    """Names the budget, and says what is spent, what others have set aside, and when there is more."""
    budget, now = account.budget, datetime.now(UTC)
    reserved = standing.leased_elsewhere + account.held + account.consumed - account.booked + max(0, account.free)
    resets = budget.window.resets_at(now)
    until = f"It resets at {resets.isoformat()}." if resets else "It does not reset."
    message = (
        f"Budget '{budget.name}' of {_dollars(standing.amount)} is used up for this request, which may cost up to "
        f"{_dollars(amount)}: {_dollars(standing.spent)} spent, {_dollars(reserved)} reserved by running requests. "
        f"{until}"
    )
    if standing.spent + amount <= standing.amount:  # it would fit when those that run cost less than they may
        return BudgetExceeded(message, _SOON_SECONDS, scope=budget.subject.scope.value)
    wait = None if resets is None else (resets - now).total_seconds()
    return BudgetExceeded(message, wait, {"x-should-retry": "false"}, budget.subject.scope.value)


def _dollars(picodollars: int) -> str:
    return f"${usd(picodollars).normalize():f}"
