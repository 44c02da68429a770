"""Organisations, teams, keys, budgets and limits as the database keeps them; see the migration of their tables.

Lists and free-form values are JSON text, so both engines take the same arguments. Columns are named here once, in the
order in which the values come.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget, Period, Window
from proxy.domain.rate_limits import Priority, RateLimit
from proxy.infrastructure.persistence.sessions import moment

ORGANISATION_COLUMNS: Final = ("id", "name", "created_at", "models", "metadata", "disabled")
TEAM_COLUMNS: Final = ("id", "name", "created_at", "organisation_id", "models", "metadata", "disabled")
KEY_COLUMNS: Final = (
    "id",
    "hash",
    "hint",
    "name",
    "created_at",
    "created_by",
    "role",
    "calls_models",
    "owner",
    "organisation_id",
    "team_id",
    "models",
    "endpoints",
    "tags",
    "metadata",
    "priority",
    "expires_at",
    "disabled",
    "previous_hash",
    "previous_until",
)
BUDGET_COLUMNS: Final = (
    "id",
    "name",
    "scope",
    "subject_id",
    "amount_usd",
    "period",
    "window_seconds",
    "is_hard",
    "warn_percent",
)
LIMIT_COLUMNS: Final = (
    "id",
    "scope",
    "subject_id",
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrent_requests",
)

Row = Sequence[Any]


def organisation_of(row: Row) -> Organisation:
    id_, name, created_at, models, metadata, disabled = row
    return Organisation(
        id=_uuid(id_),
        name=name,
        created_at=_time(created_at),
        models=_models(models),
        metadata=json.loads(metadata),
        disabled=bool(disabled),
    )


def organisation_row(organisation: Organisation) -> tuple[object, ...]:
    return (
        str(organisation.id),
        organisation.name,
        organisation.created_at,
        _models_text(organisation.models),
        json.dumps(dict(organisation.metadata)),
        organisation.disabled,
    )


def team_of(row: Row) -> Team:
    id_, name, created_at, organisation_id, models, metadata, disabled = row
    return Team(
        id=_uuid(id_),
        name=name,
        created_at=_time(created_at),
        organisation_id=_optional_uuid(organisation_id),
        models=_models(models),
        metadata=json.loads(metadata),
        disabled=bool(disabled),
    )


def team_row(team: Team) -> tuple[object, ...]:
    return (
        str(team.id),
        team.name,
        team.created_at,
        _optional_text(team.organisation_id),
        _models_text(team.models),
        json.dumps(dict(team.metadata)),
        team.disabled,
    )


def key_of(row: Row) -> VirtualKey:
    columns = dict(zip(KEY_COLUMNS, row, strict=True))
    endpoints = columns["endpoints"]
    return VirtualKey(
        id=_uuid(columns["id"]),
        hash=columns["hash"],
        hint=columns["hint"],
        name=columns["name"],
        created_at=_time(columns["created_at"]),
        created_by=columns["created_by"],
        role=Role(columns["role"]),
        calls_models=bool(columns["calls_models"]),
        owner=columns["owner"],
        organisation_id=_optional_uuid(columns["organisation_id"]),
        team_id=_optional_uuid(columns["team_id"]),
        models=_models(columns["models"]),
        endpoints=None if endpoints is None else frozenset(json.loads(endpoints)),
        tags=tuple(json.loads(columns["tags"])),
        metadata=json.loads(columns["metadata"]),
        priority=Priority(columns["priority"]),
        expires_at=moment(columns["expires_at"]),
        disabled=bool(columns["disabled"]),
        previous_hash=columns["previous_hash"],
        previous_until=moment(columns["previous_until"]),
    )


def key_row(key: VirtualKey) -> tuple[object, ...]:
    return (
        str(key.id),
        key.hash,
        key.hint,
        key.name,
        key.created_at,
        key.created_by,
        key.role.value,
        key.calls_models,
        key.owner,
        _optional_text(key.organisation_id),
        _optional_text(key.team_id),
        _models_text(key.models),
        None if key.endpoints is None else json.dumps(sorted(key.endpoints)),
        json.dumps(key.tags),
        json.dumps(dict(key.metadata)),
        int(key.priority),
        key.expires_at,
        key.disabled,
        key.previous_hash,
        key.previous_until,
    )


def budget_of(row: Row) -> Budget:
    id_, name, scope, subject_id, amount, period, window_seconds, is_hard, warn_percent = row
    return Budget(
        id=_uuid(id_),
        name=name,
        subject=Subject(Scope(scope), subject_id),
        amount_usd=Decimal(amount),
        window=Window(Period(period), window_seconds),
        is_hard=bool(is_hard),
        warn_percent=warn_percent,
    )


def budget_row(budget: Budget) -> tuple[object, ...]:
    return (
        str(budget.id),
        budget.name,
        budget.subject.scope.value,
        budget.subject.id,
        f"{budget.amount_usd:f}",
        budget.window.period.value,
        budget.window.seconds,
        budget.is_hard,
        budget.warn_percent,
    )


def limit_of(row: Row) -> RateLimit:
    id_, scope, subject_id, requests, tokens, input_tokens, output_tokens, concurrent = row
    return RateLimit(
        id=_uuid(id_),
        subject=Subject(Scope(scope), subject_id),
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        input_tokens_per_minute=input_tokens,
        output_tokens_per_minute=output_tokens,
        concurrent_requests=concurrent,
    )


def limit_row(limit: RateLimit) -> tuple[object, ...]:
    return (
        str(limit.id),
        limit.subject.scope.value,
        limit.subject.id,
        limit.requests_per_minute,
        limit.tokens_per_minute,
        limit.input_tokens_per_minute,
        limit.output_tokens_per_minute,
        limit.concurrent_requests,
    )


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) and type(value) is UUID else UUID(str(value))


def _optional_uuid(value: Any) -> UUID | None:
    return None if value is None else _uuid(value)


def _optional_text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _time(value: Any) -> Any:
    return moment(value)


def _models(text: str | None) -> ModelScope:
    return ModelScope(None if text is None else tuple(json.loads(text)))


def _models_text(models: ModelScope) -> str | None:
    return None if models.allowed is None else json.dumps(models.allowed)
