# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""AccessStore and AuditLog on either engine."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from proxy.application.administration.objects import KINDS, AuditEntry, Entity
from proxy.application.administration.ports import Changing, Page, Reading
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.errors import AlreadyThere, InvalidRequest
from proxy.domain.rate_limits import RateLimit
from proxy.domain.storable import is_storable
from proxy.infrastructure.persistence.access_tables import (
    KEYS_OF_ORGANISATION,
    KEYS_OF_TEAM,
    TABLES,
    TEAMS_OF,
)
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, column_taken, is_about_the_row, not_serving
from proxy.infrastructure.persistence.sessions import Session, moment, session_within

E = TypeVar("E", bound=Entity)
_TIMEOUT_SECONDS = 10.0
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_AUDIT_COLUMNS = (
    "id",
    "timestamp",
    "actor",
    "action",
    "object_kind",
    "object_id",
    "before",
    "after",
    "request_id",
)
_FIELDS = {"previous_hash": "hash"}  # of columns that clients call something else
_AUDIT_FILTERS = {
    "actor": r"actor LIKE '%' || {of} || '%' ESCAPE '\'",
    "action": "action = {of}",
    "kind": "object_kind = {of}",
    "object": "object_id = {of}",
}
# Budgets and limits are within what they are for, also those that are gone.
_AUDITED = "CASE WHEN object_kind IN ('budgets', 'limits') THEN {subject} ELSE object_id END"
_AUDIT_WITHIN = {
    Scope.ORGANISATION: f"""(actor = {{actor}} OR {_AUDITED} = {{of}} OR {_AUDITED} IN ({TEAMS_OF})
        OR {_AUDITED} IN ({KEYS_OF_ORGANISATION}))""",
    Scope.TEAM: f"(actor = {{actor}} OR {_AUDITED} = {{of}} OR {_AUDITED} IN ({KEYS_OF_TEAM}))",
    Scope.KEY: f"(actor = {{actor}} OR {_AUDITED} = {{of}})",
}
_SUBJECT_POSTGRES = "CAST(COALESCE(after, before) AS json) ->> 'subject'"
_LOCK_SUBJECT = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_SUBJECT_SQLITE = "json_extract(COALESCE(after, before), '$.subject')"


class SqlAccessStore:
    """Every block has a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        async with self._answering(), session_within(self._database, _TIMEOUT_SECONDS) as to:
            yield _World(to)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Changing]:
        async with self._answering(), session_within(self._database, _TIMEOUT_SECONDS) as to, to.transaction():
            yield _World(to, locks=True)

    async def entries(self, page: Page, actor: str) -> Sequence[AuditEntry]:
        """The audit log's, newest first; filters are actor, action, kind, object, since and until."""
        query = _Query("audit_log", _AUDIT_COLUMNS, "timestamp")
        if page.within != GATEWAY:
            condition = _AUDIT_WITHIN[page.within.scope]
            subject = _SUBJECT_POSTGRES if self._database.is_postgres else _SUBJECT_SQLITE
            of, by = query.place(page.within.id), query.place(actor)
            query.within(condition.format(of=of, actor=by, subject=subject))
        for name, value in page.filters.items():
            if name in ("since", "until"):
                sign = ">=" if name == "since" else "<"
                query.where(f"timestamp {sign} {query.place(datetime.fromisoformat(value))}")
            else:
                query.matching(_AUDIT_FILTERS[name], value)
        async with self._answering(), session_within(self._database, _TIMEOUT_SECONDS) as to:
            return [_entry(row) for row in await query.run(to, page)]

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            yield
        except DATABASE_ERRORS as problem:
            if is_about_the_row(problem):
                raise _refused(problem) from None
            raise not_serving(problem) from problem


def _refused(problem: BaseException) -> AlreadyThere:
    taken = column_taken(problem)
    if taken is None:
        return AlreadyThere("Something that it refers to is gone, or the database does not take it.")
    field = _FIELDS.get(taken, taken)
    return AlreadyThere(f"The {field} is taken: another one has it.", param=field)


class _Query:
    """A page of a table, newest first."""

    def __init__(self, table: str, columns: Sequence[str], time: str) -> None:
        self._table = table
        self._columns = columns
        self._time = time
        self._within: list[str] = []
        self._conditions: list[str] = []
        self._arguments: list[object] = []

    def place(self, value: object) -> str:
        self._arguments.append(value)
        return f"${len(self._arguments)}"

    def within(self, condition: str) -> None:
        """What the asker reaches: also a cursor must be of it."""
        self._within.append(condition)

    def where(self, condition: str) -> None:
        self._conditions.append(condition)

    def matching(self, condition: str, value: str) -> None:
        """What a client gives means itself: nothing in it is a wildcard."""
        if "LIKE" in condition:
            value = re.sub(r"([\\%_])", r"\\\1", value)
        self.where(condition.format(of=self.place(value)))

    async def run(self, to: Session, page: Page) -> Sequence[Sequence[Any]]:
        if page.after is not None:
            if not _UUID.fullmatch(page.after):
                return []
            place, seen = self.place(page.after), " AND ".join(["true", *self._within])
            self.where(
                f"({self._time}, CAST(id AS TEXT)) < (SELECT {self._time}, CAST(id AS TEXT) FROM {self._table} "
                f"WHERE CAST(id AS TEXT) = {place} AND {seen})"
            )
        where = " AND ".join(["true", *self._within, *self._conditions])
        columns = ", ".join(self._columns)
        return await to.fetch(
            f"SELECT {columns} FROM {self._table} WHERE {where} "
            f"ORDER BY {self._time} DESC, CAST(id AS TEXT) DESC LIMIT {int(page.limit)}",
            *self._arguments,
        )


class _World:
    """One transaction's view, and its changes.

    `locks` keeps what was read as it is until the end: a key that is revoked must not come back by another change.
    """

    def __init__(self, to: Session, *, locks: bool = False) -> None:
        self._to = to
        self._locks = locks

    async def get(self, kind: type[E], id_or_name: str, within: Subject = GATEWAY) -> E | None:
        table = TABLES[kind]
        arguments = [id_or_name]
        if not is_storable(id_or_name):
            return None
        if _UUID.fullmatch(id_or_name):
            condition, order = "id = $1", "id"
        elif table.name is None:
            return None
        else:  # of those that are named so, the one that is in use
            condition, order = f"{table.name} = $1", "disabled" if "disabled" in table.columns else "id"
        if within != GATEWAY:
            limited = table.within.get(within.scope, "false")
            condition += f" AND {limited.format(of='$2')}"
            arguments += [within.id] if "{of}" in limited else []
        lock = " FOR UPDATE" if self._locks and self._to.is_postgres else ""
        found = await self._to.fetch(
            f"SELECT {', '.join(table.columns)} FROM {table.table} WHERE {condition} ORDER BY {order} LIMIT 2{lock}",
            *arguments,
        )
        if len(found) > 1 and not getattr(table.read(found[1]), "disabled", False):
            raise InvalidRequest(f"Several {KINDS[kind]} are named '{id_or_name}': use the id.", param="id")
        return table.read(found[0]) if found else None

    async def page(self, kind: type[E], page: Page) -> Sequence[E]:
        table = TABLES[kind]
        query = _Query(table.table, table.columns, "created_at")
        if page.within != GATEWAY:
            condition = table.within.get(page.within.scope, "false")
            query.within(condition.format(of=query.place(page.within.id)) if "{of}" in condition else condition)
        for name, value in page.filters.items():
            query.matching(table.filters[name], value)
        return [table.read(row) for row in await query.run(self._to, page)]

    async def is_within(self, subject: Subject, reach: Subject) -> bool:
        kinds: dict[Scope, type[Entity]] = {
            Scope.ORGANISATION: Organisation,
            Scope.TEAM: Team,
            Scope.KEY: VirtualKey,
        }
        if subject.scope not in kinds:
            return reach == GATEWAY
        if reach.scope.width < subject.scope.width:
            return False  # what something belongs to is not within it
        if not _UUID.fullmatch(subject.id):
            return False
        table = TABLES[kinds[subject.scope]]
        condition = "true" if reach == GATEWAY else table.within.get(reach.scope, "false")
        arguments = [subject.id] if "{of}" not in condition else [subject.id, reach.id]
        found = await self._to.fetch(
            f"SELECT 1 FROM {table.table} WHERE id = $1 AND {condition.format(of='$2')}", *arguments
        )
        return bool(found)

    async def limit_for(self, subject: Subject) -> RateLimit | None:
        if self._to.is_postgres:  # SQLite's transaction keeps the others out
            await self._to.execute(_LOCK_SUBJECT, f"rate_limits/{subject.scope.value}/{subject.id}")
        table = TABLES[RateLimit]
        found = await self._to.fetch(
            f"SELECT {', '.join(table.columns)} FROM {table.table} WHERE scope = $1 AND subject_id = $2 "
            "ORDER BY created_at DESC LIMIT 1",
            subject.scope.value,
            subject.id,
        )
        return table.read(found[0]) if found else None

    async def add(self, entity: Entity) -> None:
        table, values = TABLES[type(entity)], TABLES[type(entity)].write(entity)
        columns = list(table.columns)
        if table.stamps:
            columns, values = [*columns, "created_at"], (*values, datetime.now(UTC))
        places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        await self._to.execute(f"INSERT INTO {table.table} ({', '.join(columns)}) VALUES ({places})", *values)

    async def replace(self, entity: Entity) -> None:
        table = TABLES[type(entity)]
        sets = ", ".join(f"{column} = ${place}" for place, column in enumerate(table.columns, 1))
        await self._to.execute(
            f"UPDATE {table.table} SET {sets} WHERE id = ${len(table.columns) + 1}",
            *table.write(entity),
            str(entity.id),
        )

    async def remove(self, entity: Entity) -> None:
        table = TABLES[type(entity)].table
        await self._to.execute(f"DELETE FROM {table} WHERE id = $1", str(entity.id))

    async def note(self, entry: AuditEntry) -> None:
        values = (
            str(entry.id),
            entry.timestamp,
            entry.actor,
            entry.action,
            entry.object_kind,
            entry.object_id,
            None if entry.before is None else json.dumps(entry.before),
            None if entry.after is None else json.dumps(entry.after),
            entry.request_id,
        )
        places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
        await self._to.execute(f"INSERT INTO audit_log ({', '.join(_AUDIT_COLUMNS)}) VALUES ({places})", *values)


def _entry(row: Sequence[Any]) -> AuditEntry:
    id_, timestamp, actor, action, kind, object_id, before, after, request_id = row
    return AuditEntry(
        id=UUID(str(id_)),
        timestamp=moment(timestamp) or datetime.min.replace(tzinfo=UTC),
        actor=actor,
        action=action,
        object_kind=kind,
        object_id=object_id,
        before=None if before is None else json.loads(before),
        after=None if after is None else json.loads(after),
        request_id=request_id,
    )
