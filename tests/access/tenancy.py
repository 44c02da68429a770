"""Organisations, teams, keys, budgets and limits for tests, written as the database keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from proxy.domain.access.keys import NewKey, generate_key
from proxy.domain.access.model_scope import ModelScope
from proxy.domain.access.scopes import Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget, Period, Window
from proxy.domain.rate_limits import RateLimit
from proxy.infrastructure.persistence.access_rows import (
    BUDGET_COLUMNS,
    KEY_COLUMNS,
    LIMIT_COLUMNS,
    ORGANISATION_COLUMNS,
    TEAM_COLUMNS,
    budget_row,
    key_row,
    limit_row,
    organisation_row,
    team_row,
)
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.sessions import Session, session

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def scope(*names: str) -> ModelScope:
    return ModelScope(names)


def virtual_key(new: NewKey, **members: Any) -> VirtualKey:
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "hash": new.hash,
        "hint": new.hint,
        "name": "a key",
        "created_at": NOW,
        "created_by": "test",
    }
    return VirtualKey(**{**defaults, **members})


def budget(subject: Subject, usd: str = "10", **members: Any) -> Budget:
    return Budget(
        id=uuid4(), name="a budget", subject=subject, amount_usd=Decimal(usd), window=Window(Period.MONTH), **members
    )


def limit(subject: Subject, **members: int) -> RateLimit:
    return RateLimit(id=uuid4(), subject=subject, **members)


@dataclass(frozen=True, slots=True)
class Tenancy:
    """The tables of one database, which is opened for each thing that is done unless it is open."""

    url: str
    database: Database | None = None

    async def key(self, **members: Any) -> tuple[str, VirtualKey]:
        """A new key, in clear and as it is kept."""
        new = generate_key()
        key = virtual_key(new, **members)
        await self._insert("virtual_keys", KEY_COLUMNS, key_row(key))
        return new.secret, key

    async def team(self, organisation_id: UUID | None = None, **members: Any) -> Team:
        team = Team(id=uuid4(), name=f"team {uuid4()}", created_at=NOW, organisation_id=organisation_id, **members)
        await self._insert("teams", TEAM_COLUMNS, team_row(team))
        return team

    async def organisation(self, **members: Any) -> Organisation:
        organisation = Organisation(id=uuid4(), name=f"organisation {uuid4()}", created_at=NOW, **members)
        await self._insert("organisations", ORGANISATION_COLUMNS, organisation_row(organisation))
        return organisation

    async def add(self, rule: Budget | RateLimit) -> None:
        if isinstance(rule, Budget):
            await self._insert("budgets", (*BUDGET_COLUMNS, "created_at"), (*budget_row(rule), NOW))
        else:
            await self._insert("rate_limits", (*LIMIT_COLUMNS, "created_at"), (*limit_row(rule), NOW))

    async def change(self, table: str, id_: UUID, **values: object) -> None:
        """Columns of one row."""
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(values, 2))
        await self.execute(f"UPDATE {table} SET {sets} WHERE id = $1", str(id_), *values.values())

    async def delete(self, table: str, id_: UUID) -> None:
        await self.execute(f"DELETE FROM {table} WHERE id = $1", str(id_))

    async def execute(self, statement: str, *arguments: object) -> None:
        async with self._session() as writer:
            await writer.execute(statement, *arguments)

    async def fetch(self, statement: str) -> Sequence[Sequence[Any]]:
        async with self._session() as reader:
            return await reader.fetch(statement)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        if self.database is not None:
            async with session(self.database) as one:
                yield one
        else:
            async with open_database(self.url) as database, session(database) as one:
                yield one

    async def _insert(self, table: str, columns: Sequence[str], row: Sequence[object]) -> None:
        places = ", ".join(f"${place}" for place in range(1, len(columns) + 1))
        await self.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *row)
