# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Where each kind of what is administered is kept, what of it a reach lets through, and how it is filtered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.domain.access.scopes import Scope
from proxy.domain.access.tenants import Organisation, Team, VirtualKey
from proxy.domain.budgets import Budget
from proxy.domain.rate_limits import RateLimit
from proxy.infrastructure.persistence import access_rows as rows

TEAMS_OF = "SELECT CAST(id AS TEXT) FROM teams WHERE CAST(organisation_id AS TEXT) = {of}"
KEYS_OF_ORGANISATION = f"""SELECT CAST(id AS TEXT) FROM virtual_keys WHERE CAST(organisation_id AS TEXT) = {{of}}
    OR CAST(team_id AS TEXT) IN ({TEAMS_OF})"""
KEYS_OF_TEAM = "SELECT CAST(id AS TEXT) FROM virtual_keys WHERE CAST(team_id AS TEXT) = {of}"
_RULES_WITHIN: Final = {
    Scope.ORGANISATION: f"""((scope = 'organisation' AND subject_id = {{of}})
        OR (scope = 'team' AND subject_id IN ({TEAMS_OF}))
        OR (scope = 'key' AND subject_id IN ({KEYS_OF_ORGANISATION})))""",
    Scope.TEAM: f"""((scope = 'team' AND subject_id = {{of}})
        OR (scope = 'key' AND subject_id IN ({KEYS_OF_TEAM})))""",
    Scope.KEY: "(scope = 'key' AND subject_id = {of})",
}
_TEAM_OF_KEY = "SELECT CAST(team_id AS TEXT) FROM virtual_keys WHERE CAST(id AS TEXT) = {of}"


@dataclass(frozen=True, slots=True)
class TableOf:
    """`within` are the conditions for each reach but the whole gateway's; one that is missing reaches nothing.

    `filters` gives the condition for each filter. `name` is the column that objects are named by, if there is one.
    """

    table: str
    columns: Sequence[str]
    read: Callable[[Sequence[Any]], Any]
    write: Callable[[Any], tuple[object, ...]]
    within: dict[Scope, str]
    filters: dict[str, str]
    name: str | None = None
    stamps: bool = False  # whether `created_at` is the table's only


_BY_NAME = {
    "name": r"lower(name) LIKE '%' || lower({of}) || '%' ESCAPE '\'",
    "disabled": "CASE WHEN disabled THEN 'true' ELSE 'false' END = {of}",
}
_BY_SUBJECT = {"scope": "scope = {of}", "subject": "subject_id = {of}"}
TABLES: Final[dict[type, TableOf]] = {
    Organisation: TableOf(
        "organisations",
        rows.ORGANISATION_COLUMNS,
        rows.organisation_of,
        rows.organisation_row,
        {
            Scope.ORGANISATION: "CAST(id AS TEXT) = {of}",
            Scope.TEAM: "id IN (SELECT organisation_id FROM teams WHERE CAST(id AS TEXT) = {of})",
        },
        _BY_NAME,
        "name",
    ),
    Team: TableOf(
        "teams",
        rows.TEAM_COLUMNS,
        rows.team_of,
        rows.team_row,
        {
            Scope.ORGANISATION: "CAST(organisation_id AS TEXT) = {of}",
            Scope.TEAM: "CAST(id AS TEXT) = {of}",
            Scope.KEY: f"CAST(id AS TEXT) IN ({_TEAM_OF_KEY})",
        },
        {**_BY_NAME, "organisation": "CAST(organisation_id AS TEXT) = {of}"},
        "name",
    ),
    VirtualKey: TableOf(
        "virtual_keys",
        rows.KEY_COLUMNS,
        rows.key_of,
        rows.key_row,
        {
            Scope.ORGANISATION: f"CAST(id AS TEXT) IN ({KEYS_OF_ORGANISATION})",
            Scope.TEAM: "CAST(team_id AS TEXT) = {of}",
            Scope.KEY: "CAST(id AS TEXT) = {of}",
        },
        {
            **_BY_NAME,
            "team": "CAST(team_id AS TEXT) = {of}",
            "organisation": f"CAST(id AS TEXT) IN ({KEYS_OF_ORGANISATION})",
            "owner": "owner = {of}",
            "role": "role = {of}",
        },
        "name",
    ),
    Budget: TableOf(
        "budgets",
        rows.BUDGET_COLUMNS,
        rows.budget_of,
        rows.budget_row,
        _RULES_WITHIN,
        {**_BY_SUBJECT, "name": _BY_NAME["name"]},
        "name",
        stamps=True,
    ),
    RateLimit: TableOf(
        "rate_limits",
        rows.LIMIT_COLUMNS,
        rows.limit_of,
        rows.limit_row,
        _RULES_WITHIN,
        _BY_SUBJECT,
        stamps=True,
    ),
}
