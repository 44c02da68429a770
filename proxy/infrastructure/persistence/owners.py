# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Keys, teams and organisations as owners of rows: who is meant, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from piccolo.columns.combination import WhereRaw

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.storable import is_storable
from proxy.infrastructure.persistence.sessions import Session

OWNER_COLUMNS: Final[Mapping[Scope, str]] = {
    Scope.KEY: "key_id",
    Scope.TEAM: "team_id",
    Scope.ORGANISATION: "organisation_id",
}
_TABLES: Final = {Scope.KEY: "virtual_keys", Scope.TEAM: "teams", Scope.ORGANISATION: "organisations"}
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
            return f"{column} IN (SELECT {id_} FROM {_TABLES[self.scope]} WHERE name = {place})"
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
    query = f"SELECT id FROM {_TABLES[subject.scope]} WHERE name = $1 LIMIT 2"
    ids = await reader.fetch(query, subject.id)
    if len(ids) > 1:
        return OwnedBy(subject.scope, subject.id, by_name=True)
    return OwnedBy(subject.scope, str(ids[0][0]) if ids else None)


async def names_of(reader: Session, scope: Scope, ids: Iterable[str]) -> dict[str, str]:
    """Names by id, of those that there still are. Raises DATABASE_ERRORS."""
    names: dict[str, str] = {}
    wanted = [str(found) for text in ids if (found := _uuid(text)) is not None]
    for first in range(0, len(wanted), _AT_A_TIME):
        some = wanted[first : first + _AT_A_TIME]
        places = ", ".join(f"${place}" for place in range(1, len(some) + 1))
        query = f"SELECT id, name FROM {_TABLES[scope]} WHERE id IN ({places})"
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
