"""What the database knows of a caller: names, and what its budgets have spent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from proxy.application.self_service import Account
from proxy.domain.access.principals import Principal
from proxy.domain.access.scopes import Scope
from proxy.domain.budgets import Budget
from proxy.infrastructure.persistence.charges import HIGH_SUM, LOW_SUM, whole_sum
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.owners import names_of
from proxy.infrastructure.persistence.sessions import Session, moment, session

_TIMEOUT_SECONDS = 15.0
_KEY: Final = "SELECT hint, expires_at FROM virtual_keys WHERE id = $1"
_SPENT: Final = f"""SELECT {HIGH_SUM}, {LOW_SUM} FROM budget_spend
    WHERE budget_id = $1 AND subject_id = '' AND bucket >= $2"""  # noqa: S608  # '': only those for EACH name subjects


class LedgerAccounts:
    """Accounts on either engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, principal: Principal, now: datetime) -> Account:
        try:
            async with (
                asyncio.timeout(_TIMEOUT_SECONDS),
                session(self._database) as reader,
                reader.snapshot(writing=False),
            ):
                return await _read(reader, principal, now)
        except DATABASE_ERRORS as problem:
            raise not_serving(problem) from problem


async def _read(reader: Session, principal: Principal, now: datetime) -> Account:
    found: Sequence[Sequence[Any]] = ()
    if principal.key_id is not None:
        found = await reader.fetch(_KEY, str(principal.key_id))
    hint, expires_at = found[0] if found else (None, None)
    return Account(
        key_hint=hint,
        expires_at=moment(expires_at),
        team_name=await _name(reader, Scope.TEAM, principal.team_id),
        organisation_name=await _name(reader, Scope.ORGANISATION, principal.organisation_id),
        spent_picodollars=[await _spent(reader, budget, now) for budget in principal.budgets],
    )


async def _name(reader: Session, scope: Scope, id_: UUID | None) -> str | None:
    return None if id_ is None else (await names_of(reader, scope, [str(id_)])).get(str(id_))


async def _spent(reader: Session, budget: Budget, now: datetime) -> int:
    since = budget.window.counts_since(now)
    ((high, low),) = await reader.fetch(_SPENT, str(budget.id), since)
    return whole_sum(high, low)
