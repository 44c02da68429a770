"""Keys, teams and organisations as owners of rows: who is meant, and what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from piccolo.columns.combination import Where

from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.storable import is_storable
from proxy.infrastructure.persistence.sessions import Session
from proxy.infrastructure.persistence.tables import RequestLogTable

OWNER_COLUMNS: Final[Mapping[Scope, str]] = {
    Scope.KEY: "key_id",
    Scope.TEAM: "team_id",
    Scope.ORGANISATION: "organisation_id",
}
_TABLES: Final = {Scope.KEY: "virtual_keys", Scope.TEAM: "teams", Scope.ORGANISATION: "organisations"}
_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class OwnedBy:
    """Rows whose column has one of the ids; none is no row at all."""

    column: str
    ids: tuple[UUID, ...]


_NIL: Final = UUID(int=0)
_NOBODY: Final = OwnedBy("key_id", ())


def within(reach: Subject) -> list[OwnedBy]:
    """What a reach lets through. One that this version does not understand lets nothing through."""
    if reach == GATEWAY:
        return []
    column, found = OWNER_COLUMNS.get(reach.scope), _uuid(reach.id)
    return [_NOBODY if column is None or found is None else OwnedBy(column, (found,))]


async def meant_by(reader: Session, named: Iterable[Subject]) -> list[OwnedBy]:
    """Owners as people name them, by id or by name; keys may share a name. Raises DATABASE_ERRORS."""
    owned = []
    for subject in named:
        found = _uuid(subject.id)
        ids = await _ids_of_name(reader, subject) if found is None else (found,)
        owned.append(OwnedBy(OWNER_COLUMNS[subject.scope], ids))
    return owned


async def names_of(reader: Session, scope: Scope, ids: Iterable[str]) -> dict[str, str]:
    """Names by id, of those that there still are. Raises DATABASE_ERRORS."""
    names: dict[str, str] = {}
    wanted = [str(found) for text in ids if (found := _uuid(text)) is not None]
    for first in range(0, len(wanted), _AT_A_TIME):
        some = wanted[first : first + _AT_A_TIME]
        places = ", ".join(f"${place}" for place in range(1, len(some) + 1))
        query = f"SELECT id, name FROM {_TABLES[scope]} WHERE id IN ({places})"  # noqa: S608  # our names
        names |= {str(id_): name for id_, name in await reader.fetch(query, *some)}
    return names


def condition(owned: Sequence[OwnedBy], first_place: int) -> str:
    """` AND …` for a statement whose arguments from that place on are `arguments(owned)`."""
    clauses, place = [], first_place
    for each in owned:
        places = ", ".join(f"${place + offset}" for offset in range(len(each.ids)))
        clauses.append(f" AND {each.column} IN ({places})" if each.ids else " AND 1 = 0")
        place += len(each.ids)
    return "".join(clauses)


def arguments(owned: Sequence[OwnedBy]) -> list[str]:
    return [str(id_) for each in owned for id_ in each.ids]


def owned_columns(table: type[RequestLogTable], owned: Iterable[OwnedBy]) -> list[Where]:
    """The same condition for Piccolo."""
    columns = {"key_id": table.key_id, "team_id": table.team_id, "organisation_id": table.organisation_id}
    # Piccolo refuses an empty list; no row has a nil id.
    return [columns[each.column].is_in(list(each.ids) or [_NIL]) for each in owned]


async def _ids_of_name(reader: Session, subject: Subject) -> tuple[UUID, ...]:
    """All of them: where deployments make their own keys hundreds have one name, and a sum over some would be wrong."""
    if not is_storable(subject.id):
        return ()
    query = f"SELECT id FROM {_TABLES[subject.scope]} WHERE name = $1 ORDER BY id"  # noqa: S608
    return tuple(UUID(str(id_)) for (id_,) in await reader.fetch(query, subject.id))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
