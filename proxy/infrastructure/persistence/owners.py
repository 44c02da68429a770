# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Keys, teams and organisations as owners of rows: who is meant, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from piccolo.columns.combination import WhereRaw

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.errors import ObjectNotFound
from proxy.domain.storable import is_storable
from proxy.infrastructure.persistence.access_tables import TABLES
from proxy.infrastructure.persistence.sessions import Session

OWNER_COLUMNS: Final[Mapping[Scope, str]] = {
    Scope.KEY: "key_id",
    Scope.TEAM: "team_id",
    Scope.ORGANISATION: "organisation_id",
}
_TABLES: Final = {
    Scope.KEY: TABLES[VirtualKey],
    Scope.TEAM: TABLES[Team],
    Scope.ORGANISATION: TABLES[Organisation],
}
_AT_A_TIME = 500
_ID = "id"
_ID_IN_SUMS = "CAST(id AS VARCHAR(36))"


@dataclass(frozen=True, slots=True)
class OwnedBy:
    """Rows of one owner by its id, or of all that have the name; without an argument no row at all."""

    scope: Scope
    argument: str | None
    by_name: bool = False

    def clause(self, place: str, id_: str) -> str:
        """The condition, with `place` for the argument, if there is one, and `id_` for how the column has ids."""
        column = OWNER_COLUMNS[self.scope]
        if self.argument is None:
            return "1 = 0"
        if self.by_name:
            return f"{column} IN (SELECT {id_} FROM {_TABLES[self.scope].table} WHERE name = {place})"
        return f"{column} = {place}"


_NOBODY: Final = OwnedBy(Scope.KEY, None)


def within(reach: Subject) -> list[OwnedBy]:
    """What a reach lets through. One that this version does not understand lets nothing through."""
    if reach == GATEWAY:
        return []
    found = _uuid(reach.id)
    return [_NOBODY if reach.scope not in OWNER_COLUMNS or found is None else OwnedBy(reach.scope, str(found))]


async def meant_by(reader: Session, named: Iterable[Subject]) -> list[OwnedBy]:
    """Owners as people name them, by id or by name; keys may share a name. Raises DATABASE_ERRORS."""
    return [await _meant_by(reader, subject) for subject in named]


async def _meant_by(reader: Session, subject: Subject) -> OwnedBy:
    """A name that several keys have stays one: where deployments make their own keys tens of thousands have it.

    PostgreSQL takes no more than 32,767 arguments. By the id of a single one the rows are found in the order of time.
    """
    if (found := _uuid(subject.id)) is not None:
        return OwnedBy(subject.scope, str(found))
    if not is_storable(subject.id):
        return OwnedBy(subject.scope, None)
    query = f"SELECT id FROM {_TABLES[subject.scope].table} WHERE name = $1 LIMIT 2"
    ids = await reader.fetch(query, subject.id)
    if len(ids) > 1:
        return OwnedBy(subject.scope, subject.id, by_name=True)
    return OwnedBy(subject.scope, str(ids[0][0]) if ids else None)


async def check_there(reader: Session, named: Iterable[Subject], reach: Subject = GATEWAY) -> None:
    """For an answer without rows: whether there are such owners. Raises ObjectNotFound, DATABASE_ERRORS.

    What is not within the reach does not exist. Where a reach tells nothing of a kind, as a key's of organisations,
    nothing is told of it here either.
    """
    for subject in named:
        if not await _is_there(reader, subject, reach):
            raise ObjectNotFound(subject.scope.value, subject.id)


async def _is_there(reader: Session, subject: Subject, reach: Subject) -> bool:
    if not is_storable(subject.id):
        return False
    table, found = _TABLES[subject.scope], _uuid(subject.id)
    wanted, values = ("name = $1", [subject.id]) if found is None else ("id = $1", [str(found)])
    if reach != GATEWAY:
        limited = table.within.get(reach.scope)
        if limited is None:
            return True
        wanted += f" AND {limited.format(of='$2')}"
        values.append(reach.id)
    return bool(await reader.fetch(f"SELECT 1 FROM {table.table} WHERE {wanted} LIMIT 1", *values))


async def names_of(reader: Session, scope: Scope, ids: Iterable[str]) -> dict[str, str]:
    """Names by id, of those that there still are. Raises DATABASE_ERRORS."""
    names: dict[str, str] = {}
    wanted = [str(found) for text in ids if (found := _uuid(text)) is not None]
    for first in range(0, len(wanted), _AT_A_TIME):
        some = wanted[first : first + _AT_A_TIME]
        places = ", ".join(f"${place}" for place in range(1, len(some) + 1))
        query = f"SELECT id, name FROM {_TABLES[scope].table} WHERE id IN ({places})"
        names |= {str(id_): name for id_, name in await reader.fetch(query, *some)}
    return names


def condition(owned: Sequence[OwnedBy], first_place: int, *, of_sums: bool = False) -> str:
    """` AND …` for a statement whose arguments from that place on are `arguments(owned)`; sums have ids as text."""
    clauses, place = [], first_place
    for each in owned:
        clauses.append(f" AND {each.clause(f'${place}', _ID_IN_SUMS if of_sums else _ID)}")
        place += each.argument is not None
    return "".join(clauses)


def arguments(owned: Sequence[OwnedBy]) -> list[str]:
    return [each.argument for each in owned if each.argument is not None]


def owned_rows(owned: Iterable[OwnedBy]) -> list[WhereRaw]:
    """The same condition on rows for Piccolo."""
    return [WhereRaw(each.clause("{}", _ID), *arguments([each])) for each in owned]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
