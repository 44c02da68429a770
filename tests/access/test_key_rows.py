"""Reading a key with all that bears on it, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from proxy.domain.access.keys import key_hash
from proxy.domain.access.permissions import Permission, Role
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.rate_limits import Priority
from proxy.infrastructure.access.key_rows import _SQLITE, KeyRows
from proxy.infrastructure.persistence.database import open_database
from tests.access.tenancy import NOW, Tenancy, budget, limit, scope


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator[KeyRows]:
    async with open_database(database_url) as database:
        yield KeyRows(database)


async def test_an_unknown_hash_is_nobody(rows: KeyRows) -> None:
    assert await rows.find(key_hash("sk-nobody"), NOW) is None


async def test_a_key_of_nobody_in_particular(tenancy: Tenancy, rows: KeyRows) -> None:
    secret, key = await tenancy.key(
        name="app", tags=("a", "b"), endpoints=frozenset({"models"}), priority=Priority.HIGH, models=scope("gpt-*")
    )
    known = await rows.find(key_hash(secret), NOW)
    assert known is not None
    assert known.key == key
    assert known.admits(key.hash, NOW)
    principal = known.principal
    assert (principal.id, principal.name, principal.priority) == (f"key:{key.id}", "app", Priority.HIGH)
    assert (principal.tags, principal.endpoints) == (("a", "b"), frozenset({"models"}))
    assert principal.model_scopes == (scope("gpt-*"),)
    assert principal.reach == Subject(Scope.KEY, str(key.id))
    assert principal.may(Permission.MODELS_CALL)
    assert not principal.may(Permission.USAGE_READ)
    assert (principal.budgets, principal.limits) == ((), ())


async def test_a_key_has_the_rules_of_its_team_and_organisation_and_no_others(tenancy: Tenancy, rows: KeyRows) -> None:
    organisation = await tenancy.organisation(models=scope("gpt-*", "claude-*"))
    team = await tenancy.team(organisation.id, models=scope("gpt-*"))
    other = await tenancy.team(organisation.id)
    secret, key = await tenancy.key(team_id=team.id)
    mine = [
        Subject(Scope.KEY, str(key.id)),
        Subject(Scope.TEAM, str(team.id)),
        Subject(Scope.ORGANISATION, str(organisation.id)),
    ]
    not_mine = [Subject(Scope.TEAM, str(other.id)), Subject(Scope.TEAM, str(key.id)), GATEWAY]
    rules = [(budget(subject), limit(subject, requests_per_minute=5)) for subject in (*mine, *not_mine)]
    for each in rules:
        for rule in each:
            await tenancy.add(rule)
    known = await rows.find(key_hash(secret), NOW)
    assert known is not None
    assert {rule.id for rule in known.principal.budgets} == {money.id for money, _ in rules[:3]}
    assert set(known.principal.budgets) == {money for money, _ in rules[:3]}
    assert set(known.principal.limits) == {rate for _, rate in rules[:3]}
    assert known.principal.model_scopes == (organisation.models, team.models)
    assert known.principal.subjects() == tuple(reversed(mine))


async def test_the_teams_organisation_is_the_keys(tenancy: Tenancy, rows: KeyRows) -> None:
    """Also after the team has moved to another one."""
    before, after = await tenancy.organisation(), await tenancy.organisation()
    team = await tenancy.team(before.id)
    secret, _ = await tenancy.key(team_id=team.id, organisation_id=before.id)
    await tenancy.change("teams", team.id, organisation_id=str(after.id))
    known = await rows.find(key_hash(secret), NOW)
    assert known is not None
    assert known.principal.organisation_id == after.id


@pytest.mark.parametrize("table", ["organisations", "teams", "virtual_keys"])
async def test_a_disabled_owner_disables_its_keys(tenancy: Tenancy, rows: KeyRows, table: str) -> None:
    organisation = await tenancy.organisation()
    team = await tenancy.team(organisation.id)
    secret, key = await tenancy.key(team_id=team.id)
    ids = {"organisations": organisation.id, "teams": team.id, "virtual_keys": key.id}
    assert await rows.find(key_hash(secret), NOW) is not None
    await tenancy.change(table, ids[table], disabled=True)
    assert await rows.find(key_hash(secret), NOW) is None


async def test_a_rotated_key_is_found_by_both_hashes_for_as_long_as_it_may(tenancy: Tenancy, rows: KeyRows) -> None:
    until, old_hash = NOW + timedelta(hours=1), key_hash("sk-old")
    _, key = await tenancy.key(previous_hash=old_hash, previous_until=until)
    before, after = until - timedelta(microseconds=1), until
    known = await rows.find(key.hash, before)
    assert known is not None
    assert known == await rows.find(key.hash, after) == await rows.find(old_hash, before)
    assert await rows.find(old_hash, after) is None
    assert [known.admits(key.hash, now) for now in (before, after)] == [True, True]
    assert [known.admits(old_hash, now) for now in (before, after)] == [True, False]


async def test_an_expired_key_is_not_there(tenancy: Tenancy, rows: KeyRows) -> None:
    _, key = await tenancy.key(expires_at=NOW)
    before = NOW - timedelta(microseconds=1)
    known = await rows.find(key.hash, before)
    assert known is not None
    assert [known.admits(key.hash, now) for now in (before, NOW)] == [True, False]
    assert await rows.find(key.hash, NOW) is None
    assert await rows.find(key.hash, NOW + timedelta(days=1)) is None


async def test_both_hashes_are_found_by_their_indexes(sqlite_url: str) -> None:
    """Not by reading all keys."""
    statement = _SQLITE.replace("$1", "'x'").replace("$2", "'x'")
    explained = await Tenancy(sqlite_url).fetch(f"EXPLAIN QUERY PLAN {statement}")
    plan = str([tuple(row) for row in explained])
    assert "MULTI-INDEX OR" in plan
    assert "SCAN" not in plan.replace("SCAN CONSTANT", "")


async def test_a_row_of_a_later_version_admits_nobody_and_is_told(
    tenancy: Tenancy, rows: KeyRows, caplog: pytest.LogCaptureFixture
) -> None:
    secret, key = await tenancy.key()
    await tenancy.change("virtual_keys", key.id, role="emperor")
    assert await rows.find(key.hash, NOW) is None
    assert str(key.id) in str([record.__dict__ for record in caplog.records])
    assert secret not in str([record.__dict__ for record in caplog.records])


@pytest.mark.parametrize(
    ("role", "with_team", "with_organisation", "reach"),
    [
        (Role.MEMBER, True, True, Scope.KEY),
        (Role.TEAM_ADMIN, True, True, Scope.TEAM),
        (Role.TEAM_ADMIN, False, True, Scope.KEY),
        (Role.TEAM_ADMIN, False, False, Scope.KEY),
        (Role.ORGANISATION_ADMIN, True, True, Scope.ORGANISATION),
        (Role.ORGANISATION_ADMIN, True, False, Scope.KEY),
        (Role.AUDITOR, False, False, Scope.GATEWAY),
        (Role.AUDITOR, True, True, Scope.TEAM),
        (Role.ADMIN, False, False, Scope.GATEWAY),
        (Role.ADMIN, False, True, Scope.ORGANISATION),
        (Role.ADMIN, True, False, Scope.TEAM),
    ],
)
async def test_nobody_reaches_beyond_what_it_belongs_to(
    tenancy: Tenancy, rows: KeyRows, role: Role, reach: Scope, *, with_team: bool, with_organisation: bool
) -> None:
    organisation = await tenancy.organisation() if with_organisation else None
    organisation_id = None if organisation is None else organisation.id
    team = await tenancy.team(organisation_id) if with_team else None
    secret, _ = await tenancy.key(
        role=role, calls_models=False, team_id=None if team is None else team.id, organisation_id=organisation_id
    )
    known = await rows.find(key_hash(secret), NOW)
    assert known is not None
    assert known.principal.reach.scope is reach
    assert known.principal.may(Permission.CONFIG_WRITE) == (role is Role.ADMIN and reach is Scope.GATEWAY)
    assert known.principal.may(Permission.MODELS_CALL) == (role is Role.MEMBER)
