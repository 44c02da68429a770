"""What is administered, and how it is told: never a hash, never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget, Window
from proxy.domain.rate_limits import RateLimit

Entity = Organisation | Team | VirtualKey | Budget | RateLimit


class Kind(StrEnum):
    """As in paths, commands and the audit log."""

    ORGANISATIONS = "organisations"
    TEAMS = "teams"
    KEYS = "keys"
    BUDGETS = "budgets"
    LIMITS = "limits"


# What the audit log has changes of.
AUDITED_KINDS: Final = (*(kind.value for kind in Kind), "prices", "deployments", "configuration")

KINDS: Final[Mapping[type, Kind]] = {
    Organisation: Kind.ORGANISATIONS,
    Team: Kind.TEAMS,
    VirtualKey: Kind.KEYS,
    Budget: Kind.BUDGETS,
    RateLimit: Kind.LIMITS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change: who made it, of what, and what it was before and is now; None where there was or is nothing."""

    id: UUID
    timestamp: datetime
    actor: str
    action: str
    object_kind: str
    object_id: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str | None = None

    def view(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "timestamp": self.timestamp.isoformat(),
            "actor": self.actor,
            "action": self.action,
            "object_kind": self.object_kind,
            "object_id": self.object_id,
            "before": self.before,
            "after": self.after,
            "request_id": self.request_id,
        }


def view(entity: Entity) -> dict[str, Any]:
    """For answers and for the audit log, as JSON has it."""
    match entity:
        case Organisation():
            return _tenant(entity)
        case Team():
            return _tenant(entity) | {"organisation_id": _text(entity.organisation_id)}
        case VirtualKey():
            return _key(entity)
        case Budget():
            return _budget(entity)
        case RateLimit():
            return _limit(entity)


def _tenant(tenant: Organisation | Team) -> dict[str, Any]:
    return {
        "id": str(tenant.id),
        "name": tenant.name,
        "models": _models(tenant.models),
        "metadata": dict(tenant.metadata),
        "disabled": tenant.disabled,
        "created_at": tenant.created_at.isoformat(),
    }


def _key(key: VirtualKey) -> dict[str, Any]:
    return {
        "id": str(key.id),
        "name": key.name,
        "hint": key.hint,
        "owner": key.owner,
        "role": key.role.value,
        "calls_models": key.calls_models,
        "organisation_id": _text(key.organisation_id),
        "team_id": _text(key.team_id),
        "models": _models(key.models),
        "endpoints": None if key.endpoints is None else sorted(key.endpoints),
        "tags": list(key.tags),
        "metadata": dict(key.metadata),
        "priority": key.priority.name.lower(),
        "expires_at": _time(key.expires_at),
        "disabled": key.disabled,
        "previous_key_until": _time(key.previous_until),
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "id": str(budget.id),
        "name": budget.name,
        "scope": budget.subject.scope.value,
        "subject": budget.subject.id,
        "amount_usd": f"{budget.amount_usd:f}",
        "period": _period(budget.window),
        "hard": budget.is_hard,
        "warn_percent": budget.warn_percent,
    }


def _limit(limit: RateLimit) -> dict[str, Any]:
    return {
        "id": str(limit.id),
        "scope": limit.subject.scope.value,
        "subject": limit.subject.id,
        "requests_per_minute": limit.requests_per_minute,
        "tokens_per_minute": limit.tokens_per_minute,
        "input_tokens_per_minute": limit.input_tokens_per_minute,
        "output_tokens_per_minute": limit.output_tokens_per_minute,
        "concurrent_requests": limit.concurrent_requests,
    }


def _period(window: Window) -> str:
    """`month`, or `rolling:86400` with its seconds."""
    return window.period.value if window.seconds is None else f"{window.period.value}:{window.seconds}"


def _models(models: ModelScope) -> list[str] | None:
    return None if models.allowed is None else list(models.allowed)


def _text(id_: UUID | None) -> str | None:
    return None if id_ is None else str(id_)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
