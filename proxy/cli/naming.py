"""Names in the place of ids, in tables for people. --json keeps the ids."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from proxy.cli.administering import AdminClient, cell_of

_KINDS = {"organisation": "organisations", "team": "teams", "key": "keys"}
_AT_ONCE = 8
_Row = Mapping[str, Any]


async def with_owners(api: AdminClient, rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """With columns `team` and `organisation`."""
    owners = ("team", "organisation")
    names = await _names(api, ((owner, row.get(f"{owner}_id")) for row in rows for owner in owners))
    return [{**row, **{owner: names.get((owner, row.get(f"{owner}_id"))) for owner in owners}} for row in rows]


async def with_subjects(api: AdminClient, rows: Sequence[_Row]) -> list[dict[str, Any]]:
    """With the names of keys, teams and organisations as `subject`."""
    names = await _names(api, ((row["scope"], row["subject"]) for row in rows))
    return [{**row, "subject": names.get((row["scope"], row["subject"]), row["subject"])} for row in rows]


def with_objects(entries: Sequence[_Row]) -> list[dict[str, Any]]:
    """Entries of the audit log with columns `object`, by its name if it has one, and `changes`."""
    return [
        {**entry, "object": _name_in(entry) or entry["object_id"], "changes": _changes_of(entry)} for entry in entries
    ]


def _changes_of(entry: _Row) -> str:
    """What is not as it was before; nothing of what was made or removed as a whole."""
    before, after = entry["before"], entry["after"]
    if not isinstance(before, dict) or not isinstance(after, dict):
        return "-"
    changed = [name for name in (*before, *(set(after) - set(before))) if before.get(name) != after.get(name)]
    return ", ".join(f"{name}: {cell_of(before.get(name))} → {cell_of(after.get(name))}" for name in changed) or "-"


def _name_in(entry: _Row) -> str | None:
    for version in (entry["after"], entry["before"]):
        if isinstance(version, dict) and isinstance(name := version.get("name"), str):
            return name
    return None


async def _names(api: AdminClient, owners: Iterable[tuple[str, Any]]) -> dict[tuple[str, Any], str]:
    """Each is asked for once; who may not be seen keeps the id."""
    wanted = sorted({(scope, id_) for scope, id_ in owners if scope in _KINDS and id_ is not None})
    places = asyncio.Semaphore(_AT_ONCE)

    async def name_of(scope: str, id_: str) -> str:
        async with places:
            try:
                return str((await api.get(_KINDS[scope], id_))["name"])
            except click.ClickException:
                return id_

    return dict(zip(wanted, await asyncio.gather(*(name_of(*each) for each in wanted)), strict=True))
