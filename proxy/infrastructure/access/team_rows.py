"""The team that a token names with all that bears on its holder, read in one statement."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from proxy.domain.storable import is_storable
from proxy.infrastructure.access.key_rows import RULES, named_columns
from proxy.infrastructure.access.token_claims import Membership
from proxy.infrastructure.persistence.access_rows import (
    BUDGET_COLUMNS,
    LIMIT_COLUMNS,
    ORGANISATION_COLUMNS,
    TEAM_COLUMNS,
    budget_of,
    limit_of,
    organisation_of,
    team_of,
)
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session

_TIMEOUT_SECONDS = 5.0


def _statement(rows: str, row: str) -> str:
    budgets = RULES.format(rows=rows, row=row, columns=named_columns(BUDGET_COLUMNS, "rule"), table="budgets")
    limits = RULES.format(rows=rows, row=row, columns=named_columns(LIMIT_COLUMNS, "rule"), table="rate_limits")
    columns = ", ".join(
        (named_columns(TEAM_COLUMNS, "team"), named_columns(ORGANISATION_COLUMNS, "organisation"), budgets, limits)
    )
    return f"""SELECT {columns} FROM (SELECT CAST($1 AS TEXT) AS id) AS key
        LEFT JOIN teams AS team ON team.name = CAST($2 AS TEXT)
        LEFT JOIN organisations AS organisation ON organisation.id = team.organisation_id"""  # noqa: S608  # our names


_POSTGRES: Final = _statement("json_agg", "json_build_array")
_SQLITE: Final = _statement("json_group_array", "json_array")
_ORGANISATION_AT = len(TEAM_COLUMNS)
_RULES_AT = _ORGANISATION_AT + len(ORGANISATION_COLUMNS)


class TeamRows:
    """MembershipSource over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, key_id: UUID, team: str | None) -> Membership:
        """Raises DATABASE_ERRORS, or ValueError for what makes no sense to this version."""
        if team is not None and not is_storable(team):
            return Membership()
        async with asyncio.timeout(_TIMEOUT_SECONDS), session(self._database) as reader:
            (row,) = await reader.fetch(_POSTGRES if reader.is_postgres else _SQLITE, str(key_id), team)
        return _membership(list(row))


def _membership(row: Sequence[Any]) -> Membership:
    team, organisation = row[:_ORGANISATION_AT], row[_ORGANISATION_AT:_RULES_AT]
    budgets, limits = row[_RULES_AT:]
    return Membership(
        None if team[0] is None else team_of(team),
        None if organisation[0] is None else organisation_of(organisation),
        tuple(budget_of(each) for each in json.loads(budgets or "[]")),
        tuple(limit_of(each) for each in json.loads(limits or "[]")),
    )
