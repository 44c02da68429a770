"""What a caller may know of itself: its rights, its limits, its budgets and what it has used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from proxy.application.allowances import AppliedLimit
from proxy.application.ports import UsageReports
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import Subject
from proxy.domain.access.visibility import itself, sees_usage_of
from proxy.domain.budgets import Budget, Period, usd
from proxy.domain.rate_limits import RateLimit
from proxy.domain.usage_report import Dimension, Usage, UsageQuery, plain_usd, usage_figures

_LIMITED = (
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrent_requests",
)


@dataclass(frozen=True, slots=True)
class Account:
    """What the database knows of a caller. `spent_picodollars` is that of its budgets, in their order."""

    key_hint: str | None = None
    expires_at: datetime | None = None
    team_name: str | None = None
    organisation_name: str | None = None
    spent_picodollars: Sequence[int] = ()


class Accounts(Protocol):
    """Where that is read."""

    async def read(self, principal: Principal, now: datetime) -> Account:
        """Raises NotServing while the database is away."""
        ...


class RateLevels(Protocol):
    """How full rate limits are."""

    async def remaining(self, limits: Sequence[AppliedLimit]) -> Sequence[Mapping[str, int]]:
        """For each of them what is left now, by the names of RateLimit's members; what is not known is not there."""
        ...


@dataclass(frozen=True, slots=True)
class SelfService:
    """Answers `GET /v1/me`. Without `levels` it is not known what is left of the limits."""

    usage: UsageReports
    accounts: Accounts
    levels: RateLevels | None = None

    async def describe(self, principal: Principal, models: Sequence[str], now: datetime) -> dict[str, Any]:
        """Nothing of others: only of its budgets the sums, which it shares with its team and organisation.

        Raises NotServing.
        """
        account = await self.accounts.read(principal, now)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        whose = sees_usage_of(principal) if principal.key_id is None else itself(principal)
        return {
            "object": "me",
            "kind": principal.kind.value,
            "id": principal.id,
            "name": principal.name,
            "permissions": sorted(permission.value for permission in principal.permissions),
            "reach": str(principal.reach),
            "key": None if principal.key_id is None else _key(principal, account),
            "team": _owner(principal.team_id, account.team_name),
            "organisation": _owner(principal.organisation_id, account.organisation_name),
            "models": sorted(models),
            "endpoints": None if principal.endpoints is None else sorted(principal.endpoints),
            "limits": await self._limits(principal),
            "budgets": [
                _budget(budget, spent, now)
                for budget, spent in zip(principal.budgets, account.spent_picodollars, strict=True)
            ],
            "usage": {
                "of": str(whose),
                "today": usage_figures(await self._used(whose, today)),
                "this_month": usage_figures(await self._used(whose, today.replace(day=1))),
            },
        }

    async def _used(self, whose: Subject, since: datetime) -> Usage:
        report = await self.usage.report(UsageQuery(Dimension.STATUS, since, within=whose))
        return report.total()

    async def _limits(self, principal: Principal) -> list[dict[str, Any]]:
        applied = [AppliedLimit(limit, limit.subject) for limit in principal.limits]
        left = await self.levels.remaining(applied) if self.levels is not None and applied else [{} for _ in applied]
        return [_limit(limit, remaining) for limit, remaining in zip(principal.limits, left, strict=True)]


def _key(principal: Principal, account: Account) -> dict[str, Any]:
    return {
        "id": str(principal.key_id),
        "hint": account.key_hint,
        "expires_at": None if account.expires_at is None else account.expires_at.isoformat(),
        "tags": list(principal.tags),
        "priority": principal.priority.name.lower(),
    }


def _owner(id_: object, name: str | None) -> dict[str, Any] | None:
    return None if id_ is None else {"id": str(id_), "name": name}


def _limit(limit: RateLimit, remaining: Mapping[str, int]) -> dict[str, Any]:
    return {
        "scope": limit.subject.scope.value,
        **{
            name: {"limit": most, "remaining": remaining.get(name)}
            for name in _LIMITED
            if (most := getattr(limit, name)) is not None
        },
    }


def _budget(budget: Budget, spent_picodollars: int, now: datetime) -> dict[str, Any]:
    resets_at = budget.window.resets_at(now)
    return {
        "id": str(budget.id),
        "name": budget.name,
        "scope": budget.subject.scope.value,
        "period": budget.window.period.value,
        "window_seconds": budget.window.seconds if budget.window.period is Period.ROLLING else None,
        "is_hard": budget.is_hard,
        "amount_usd": plain_usd(budget.amount_usd),
        "spent_usd": plain_usd(usd(spent_picodollars)),
        "remaining_usd": plain_usd(usd(max(0, budget.amount_picodollars - spent_picodollars))),
        "resets_at": None if resets_at is None else resets_at.isoformat(),
    }
