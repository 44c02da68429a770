"""One good key with all that bears on it, read in one statement: its team, its organisation, their budgets and limits.

What is not good is not read: else it would take a little longer to refuse a key that is disabled than one that is not
there, and the difference can be measured.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from proxy.domain.access.known_keys import KnownKey, known_key
from proxy.infrastructure.persistence.access_rows import (
    BUDGET_COLUMNS,
    KEY_COLUMNS,
    LIMIT_COLUMNS,
    ORGANISATION_COLUMNS,
    TEAM_COLUMNS,
    budget_of,
    key_of,
    limit_of,
    organisation_of,
    team_of,
)
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session

_logger = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 3.0


def named_columns(columns: Sequence[str], of: str) -> str:
    """`of.this, of.that`."""
    return ", ".join(f"{of}.{column}" for column in columns)


RULES: Final = """(SELECT {rows}({row}({columns})) FROM {table} rule WHERE
    (rule.scope = 'key' AND rule.subject_id = CAST(key.id AS TEXT))
    OR (rule.scope = 'team' AND rule.subject_id = CAST(team.id AS TEXT))
    OR (rule.scope = 'organisation' AND rule.subject_id = CAST(organisation.id AS TEXT)))"""


def _statement(rows: str, row: str) -> str:
    budgets = RULES.format(rows=rows, row=row, columns=named_columns(BUDGET_COLUMNS, "rule"), table="budgets")
    limits = RULES.format(rows=rows, row=row, columns=named_columns(LIMIT_COLUMNS, "rule"), table="rate_limits")
    columns = ", ".join(
        (
            named_columns(KEY_COLUMNS, "key"),
            named_columns(TEAM_COLUMNS, "team"),
            named_columns(ORGANISATION_COLUMNS, "organisation"),
            budgets,
            limits,
        )
    )
    return f"""SELECT {columns} FROM virtual_keys AS key
        LEFT JOIN teams AS team ON team.id = key.team_id
        LEFT JOIN organisations AS organisation
            ON organisation.id = COALESCE(team.organisation_id, key.organisation_id)
        WHERE (key.hash = $1 OR (key.previous_hash = $1 AND key.previous_until > $2))
            AND NOT key.disabled AND (key.expires_at IS NULL OR key.expires_at > $2)
            AND NOT COALESCE(team.disabled, false) AND NOT COALESCE(organisation.disabled, false)"""  # noqa: S608  # names of ours; the hash is an argument


_POSTGRES: Final = _statement("json_agg", "json_build_array")
_SQLITE: Final = _statement("json_group_array", "json_array")
_TEAM_AT = len(KEY_COLUMNS)
_ORGANISATION_AT = _TEAM_AT + len(TEAM_COLUMNS)
_RULES_AT = _ORGANISATION_AT + len(ORGANISATION_COLUMNS)


class KeyRows:
    """KeySource over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._late: set[asyncio.Task[Sequence[Sequence[Any]]]] = set()

    async def find(self, key_hash: str, now: datetime) -> KnownKey | None:
        """Raises DATABASE_ERRORS. A row that makes no sense to this version is told in the log, and admits nobody."""
        rows = await self._in_time(asyncio.create_task(self._rows(key_hash, now)))
        if not rows:
            return None
        try:
            return _known(list(rows[0]))
        except (ValueError, KeyError, TypeError) as problem:
            _logger.error("key cannot be read", extra={"key_id": str(rows[0][0]), "reason": type(problem).__name__})
            return None

    async def _rows(self, key_hash: str, now: datetime) -> Sequence[Sequence[Any]]:
        async with session(self._database) as reader:
            return await reader.fetch(_POSTGRES if reader.is_postgres else _SQLITE, key_hash, now)

    async def _in_time(self, reading: asyncio.Task[Sequence[Sequence[Any]]]) -> Sequence[Sequence[Any]]:
        """What takes too long is left to itself: a server that is frozen does not hear that it shall stop, either."""
        done, _ = await asyncio.wait([reading], timeout=_TIMEOUT_SECONDS)
        if done:
            return reading.result()
        self._late.add(reading)
        reading.add_done_callback(self._forget)
        raise TimeoutError

    def _forget(self, reading: asyncio.Task[Sequence[Sequence[Any]]]) -> None:
        self._late.discard(reading)
        if not reading.cancelled():
            reading.exception()


def _known(row: list[Any]) -> KnownKey:
    team, organisation = row[_TEAM_AT:_ORGANISATION_AT], row[_ORGANISATION_AT:_RULES_AT]
    budgets, limits = row[_RULES_AT:]
    return known_key(
        key_of(row[:_TEAM_AT]),
        None if team[0] is None else team_of(team),
        None if organisation[0] is None else organisation_of(organisation),
        [budget_of(each) for each in json.loads(budgets or "[]")],
        [limit_of(each) for each in json.loads(limits or "[]")],
    )
