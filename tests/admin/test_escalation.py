"""Attempts to get more than one has: every one is refused, and changes nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.rate_limits import Priority
from tests.access.tenancy import Tenancy, budget, limit, scope
from tests.admin.company import Company, ask, done
from tests.harness import TestGateway

TABLES = ("organisations", "teams", "virtual_keys", "budgets", "rate_limits", "audit_log")


async def kept(tenancy: Tenancy) -> list[list[str]]:
    return [sorted(str(tuple(row)) for row in await tenancy.fetch(f"SELECT * FROM {table}")) for table in TABLES]


async def refused(
    gateway: TestGateway, firm: Company, who: str, method: str, path: str, body: dict[str, Any] | None = None
) -> None:
    before = await kept(firm.tenancy)
    answer = await ask(gateway, firm.secrets[who], method, path, body)
    assert answer.status in (400, 403, 404), (who, method, path, body, answer)
    assert await kept(firm.tenancy) == before


@pytest.mark.parametrize(
    ("who", "role"),
    [
        ("lead", "organisation_admin"),
        ("lead", "auditor"),
        ("lead", "admin"),
        ("head", "auditor"),
        ("head", "admin"),
    ],
)
async def test_nobody_hands_out_a_role_above_its_own(gateway: TestGateway, firm: Company, who: str, role: str) -> None:
    for place in ({}, {"team": firm.ids["team_id"]}, {"organisation": firm.ids["organisation_id"]}):
        await refused(gateway, firm, who, "POST", "/keys", {"name": "x", "role": role, **place})


@pytest.mark.parametrize("who", ["lead", "head"])
async def test_administrators_of_tenants_do_not_make_administrators_that_call_models(
    gateway: TestGateway, firm: Company, who: str
) -> None:
    body = {"name": "x", "role": "team_admin", "team": firm.ids["team_id"]}
    await refused(gateway, firm, who, "POST", "/keys", {**body, "calls_models": True})
    await done(gateway, "POST", "/keys", body, firm.secrets[who])


async def test_a_key_stays_where_it_is_and_what_it_is(gateway: TestGateway, firm: Company) -> None:
    names = await firm.target()
    for change in (
        {"team": firm.ids["sibling_id"]},
        {"team_id": firm.ids["sibling_id"]},
        {"organisation": firm.ids["other_organisation_id"]},
        {"organisation_id": None},
        {"role": "admin"},
        {"calls_models": True},
        {"id": firm.ids["lead id"]},
        {"hash": "0" * 64},
    ):
        for who in ("lead", "head", "master"):
            await refused(gateway, firm, who, "PATCH", f"/keys/{names['key']}", change)
    for who, team in (("head", "other"), ("lead", "other"), ("head", "organisation_id")):
        body = {"organisation": firm.ids["other_organisation_id"]} if team == "other" else {"organisation_id": None}
        await refused(gateway, firm, who, "PATCH", f"/teams/{firm.ids['team_id']}", body)


async def test_models_are_those_of_the_team(gateway: TestGateway, firm: Company) -> None:
    names = await firm.target()
    await done(gateway, "PATCH", f"/teams/{firm.ids['team_id']}", {"models": ["gpt-*", "group:cheap"]})
    for models in (["claude-3"], ["*"], ["gpt-4o", "g*"], ["group:other"], ["group:unknown"]):
        for who in ("lead", "head"):
            await refused(gateway, firm, who, "PATCH", f"/keys/{names['key']}", {"models": models})
            await refused(
                gateway, firm, who, "POST", "/keys", {"name": "x", "team": names["team_id"], "models": models}
            )
    await done(gateway, "PATCH", f"/keys/{names['key']}", {"models": ["gpt-4o"]}, firm.secrets["lead"])


async def test_a_team_has_no_models_but_its_organisations(gateway: TestGateway, firm: Company) -> None:
    await done(gateway, "PATCH", f"/organisations/{firm.ids['organisation_id']}", {"models": ["gpt-*"]})
    await refused(gateway, firm, "head", "PATCH", f"/teams/{firm.ids['team_id']}", {"models": ["claude-3"]})
    await refused(gateway, firm, "head", "POST", "/teams", {"name": "new", "models": ["*"]})
    await refused(gateway, firm, "head", "PATCH", f"/organisations/{firm.ids['organisation_id']}", {"models": None})


async def test_who_is_limited_to_models_leaves_none_open(gateway: TestGateway, firm: Company) -> None:
    names, who = await firm.target(), "restricted lead"
    await refused(gateway, firm, who, "POST", "/keys", {"name": "x"})
    await refused(gateway, firm, who, "POST", "/keys", {"name": "x", "models": ["claude-3"]})
    key = await done(gateway, "POST", "/keys", {"name": "x", "models": ["gpt-4o"]}, firm.secrets[who])
    for models in (None, ["claude-3"]):
        await refused(gateway, firm, who, "PATCH", f"/keys/{key['id']}", {"models": models})
        await refused(gateway, firm, who, "PATCH", f"/keys/{firm.ids['restricted lead id']}", {"models": models})
    await refused(gateway, firm, who, "POST", f"/keys/{names['key']}/rotate")  # its secret would be for all models


async def test_what_is_not_ones_own_to_give_is_not_given_back_either(gateway: TestGateway, firm: Company) -> None:
    """A key for all models that was revoked, or runs out."""
    who, soon = "restricted lead", datetime.now(UTC) + timedelta(hours=1)
    team = {"team_id": UUID(firm.ids["team_id"]), "organisation_id": UUID(firm.ids["organisation_id"])}
    _, revoked = await firm.tenancy.key(disabled=True, **team)
    _, ending = await firm.tenancy.key(expires_at=soon, **team)
    await refused(gateway, firm, who, "PATCH", f"/keys/{revoked.id}", {"disabled": False})
    await refused(gateway, firm, who, "PATCH", f"/keys/{ending.id}", {"expires_at": None})
    later = (soon + timedelta(hours=1)).isoformat()
    await refused(gateway, firm, who, "PATCH", f"/keys/{ending.id}", {"expires_at": later})
    await done(gateway, "PATCH", f"/keys/{ending.id}", {"tags": ["a"]}, firm.secrets[who])


@pytest.mark.parametrize("role", [Role.TEAM_ADMIN, Role.ORGANISATION_ADMIN, Role.ADMIN])
async def test_what_runs_out_hands_out_nothing_that_outlives_it(
    gateway: TestGateway, firm: Company, role: Role
) -> None:
    """Else it would live on in a key that it has made, or whose secret it has taken."""
    end = datetime.now(UTC) + timedelta(hours=1)
    place = {} if role is Role.ADMIN else {"organisation_id": UUID(firm.ids["organisation_id"])}
    if role is Role.TEAM_ADMIN:
        place["team_id"] = UUID(firm.ids["team_id"])
    ending, _ = await firm.tenancy.key(role=role, calls_models=False, expires_at=end, **place)
    endless, later = (await firm.target())["key"], (end + timedelta(seconds=1)).isoformat()
    before = await kept(firm.tenancy)
    for method, path, body in (
        ("POST", "/keys", {"name": "x", "team": firm.ids["team_id"]}),
        ("POST", "/keys", {"name": "x", "team": firm.ids["team_id"], "expires_at": later}),
        ("POST", "/keys", {"name": "x", "team": firm.ids["team_id"], "role": "team_admin"}),
        ("POST", f"/keys/{endless}/rotate", {}),
        ("PATCH", f"/keys/{endless}", {"expires_at": later}),
    ):
        answer = await ask(gateway, ending, method, path, body)
        assert answer.status == 403, (method, path, body, answer)
    assert await kept(firm.tenancy) == before
    body = {"name": "x", "team": firm.ids["team_id"], "expires_at": end.isoformat()}
    made = await done(gateway, "POST", "/keys", body, ending)
    await done(gateway, "POST", f"/keys/{made['id']}/rotate", {}, ending)
    await done(gateway, "PATCH", f"/keys/{endless}", {"owner": "anna"}, ending)
    await done(gateway, "POST", f"/keys/{endless}/revoke", by=ending)


async def test_an_administrator_limited_to_models_opens_no_others_to_an_organisation(
    gateway: TestGateway, firm: Company
) -> None:
    limited, _ = await firm.tenancy.key(role=Role.ADMIN, calls_models=False, models=scope("gpt-*"))
    path = f"/organisations/{firm.ids['organisation_id']}"
    await done(gateway, "PATCH", path, {"models": ["gpt-4o"]})
    before = await kept(firm.tenancy)
    for method, of, body in (
        ("PATCH", path, {"models": None}),
        ("PATCH", path, {"models": ["gpt-4o", "claude-3"]}),
        ("POST", "/organisations", {"name": "new"}),
    ):
        answer = await ask(gateway, limited, method, of, body)
        assert answer.status == 403, (method, body, answer)
    assert await kept(firm.tenancy) == before
    await done(gateway, "PATCH", path, {"models": ["gpt-*"], "metadata": {"a": 1}}, limited)
    for kind in ("organisations", "teams"):
        asleep = await done(gateway, "POST", f"/{kind}", {"name": f"all models {kind}", "disabled": True})
        answer = await ask(gateway, limited, "PATCH", f"/{kind}/{asleep['id']}", {"disabled": False})
        assert answer.status == 403, (kind, answer)
        await done(gateway, "PATCH", f"/{kind}/{asleep['id']}", {"metadata": {"a": 1}}, limited)


async def test_nobody_gives_a_priority_above_its_own(gateway: TestGateway, firm: Company) -> None:
    names = await firm.target()
    for who in ("lead", "head"):
        await refused(gateway, firm, who, "PATCH", f"/keys/{names['key']}", {"priority": "high"})
        await refused(gateway, firm, who, "POST", "/keys", {"name": "x", "priority": "high"})
    await refused(gateway, firm, "lead", "PATCH", f"/keys/{firm.ids['lead id']}", {"priority": "high"})
    await done(gateway, "PATCH", f"/keys/{names['key']}", {"priority": "high"})
    low, _ = await firm.tenancy.key(
        team_id=UUID(names["team_id"]),
        organisation_id=UUID(names["organisation_id"]),
        role=Role.TEAM_ADMIN,
        calls_models=False,
        priority=Priority.LOW,
    )
    assert (await ask(gateway, low, "POST", "/keys", {"name": "x"})).status == 403
    assert (await ask(gateway, low, "POST", "/keys", {"name": "x", "priority": "low"})).status == 201


async def test_who_is_limited_to_endpoints_administers_nothing(gateway: TestGateway, firm: Company) -> None:
    who = "lead with endpoints"
    await refused(gateway, firm, who, "PATCH", f"/keys/{firm.ids[f'{who} id']}", {"endpoints": None})
    await refused(gateway, firm, who, "POST", "/keys", {"name": "x", "endpoints": ["models"]})


@pytest.mark.parametrize(("who", "level"), [("lead", "team"), ("head", "organisation"), ("lead", "organisation")])
async def test_nobody_sets_the_budgets_and_limits_of_what_it_is_part_of(
    gateway: TestGateway, firm: Company, who: str, level: str
) -> None:
    for subject in (Subject(Scope(level), firm.ids[f"{level}_id"]), Subject(Scope.KEY, firm.ids[f"{who} id"])):
        money, rate = budget(subject), limit(subject, requests_per_minute=1)
        await firm.tenancy.add(money)
        await firm.tenancy.add(rate)
        of = {"scope": subject.scope.value, "subject": subject.id}
        await refused(gateway, firm, who, "PATCH", f"/budgets/{money.id}", {"amount_usd": "1000"})
        await refused(gateway, firm, who, "DELETE", f"/budgets/{money.id}")
        await refused(gateway, firm, who, "POST", "/budgets", {"name": "x", "amount_usd": "1", **of})
        await refused(gateway, firm, who, "PATCH", f"/limits/{rate.id}", {"requests_per_minute": None})
        await refused(gateway, firm, who, "DELETE", f"/limits/{rate.id}")
        await refused(gateway, firm, who, "POST", "/limits", {"requests_per_minute": 1, **of})


@pytest.mark.parametrize(("level", "subject"), [("gateway", ""), ("end_user", "*"), ("end_user", "u"), ("model", "*")])
async def test_budgets_and_limits_across_tenants_are_the_gateways(
    gateway: TestGateway, firm: Company, level: str, subject: str
) -> None:
    of = {"scope": level, "subject": subject}
    made = await done(gateway, "POST", "/budgets", {"name": "x", "amount_usd": "1", **of})
    for who in ("lead", "head", "auditor"):
        await refused(gateway, firm, who, "POST", "/budgets", {"name": "x", "amount_usd": "1", **of})
        await refused(gateway, firm, who, "POST", "/limits", {"requests_per_minute": 1, **of})
        await refused(gateway, firm, who, "DELETE", f"/budgets/{made['id']}")


async def test_a_team_that_was_disabled_does_not_enable_itself(gateway: TestGateway, firm: Company) -> None:
    await refused(gateway, firm, "lead", "PATCH", f"/teams/{firm.ids['team_id']}", {"disabled": False})
    await done(gateway, "PATCH", f"/teams/{firm.ids['team_id']}", {"disabled": True})
    async with asyncio.timeout(10):
        while (await ask(gateway, firm.secrets["lead"], "GET", "/keys")).status != 401:
            await asyncio.sleep(0.01)
    answer = await ask(gateway, firm.secrets["lead"], "PATCH", f"/teams/{firm.ids['team_id']}", {"disabled": False})
    assert answer.status == 401


@pytest.mark.parametrize("who", ["lead", "head"])
async def test_a_key_does_not_put_off_its_own_end(gateway: TestGateway, firm: Company, who: str) -> None:
    await refused(gateway, firm, who, "PATCH", f"/keys/{firm.ids[f'{who} id']}", {"expires_at": None})


async def test_nobody_touches_a_key_that_may_do_more_than_its_own(gateway: TestGateway, firm: Company) -> None:
    """Whoever rotates it would have its secret."""
    team = {"team_id": UUID(firm.ids["team_id"]), "organisation_id": UUID(firm.ids["organisation_id"])}
    for role in (Role.ORGANISATION_ADMIN, Role.AUDITOR, Role.ADMIN):
        _, key = await firm.tenancy.key(role=role, calls_models=False, **team)
        for method, what, body in (("POST", "/rotate", {}), ("POST", "/revoke", {}), ("PATCH", "", {"owner": "me"})):
            await refused(gateway, firm, "lead", method, f"/keys/{key.id}{what}", body)
    _, calling = await firm.tenancy.key(role=Role.TEAM_ADMIN, calls_models=True, models=scope("gpt-*"), **team)
    await refused(gateway, firm, "lead", "POST", f"/keys/{calling.id}/rotate")


async def test_a_wider_key_may_be_revoked_but_not_rotated(gateway: TestGateway, firm: Company) -> None:
    """Nobody has the secret of a key that is revoked."""
    key, by = (await firm.target())["key"], firm.secrets["restricted lead"]
    await refused(gateway, firm, "restricted lead", "POST", f"/keys/{key}/rotate")
    assert (await done(gateway, "POST", f"/keys/{key}/revoke", by=by))["disabled"] is True


@pytest.mark.parametrize("round_", range(5))
async def test_a_revoked_key_does_not_come_back_by_changes_at_the_same_moment(
    gateway: TestGateway, firm: Company, round_: int
) -> None:
    key = (await firm.target())["key"]
    lead = firm.secrets["lead"]
    changes = [ask(gateway, lead, "PATCH", f"/keys/{key}", {"tags": [f"{round_} {n}"]}) for n in range(6)]
    rotating = ask(gateway, lead, "POST", f"/keys/{key}/rotate", {"grace_seconds": 60})
    answers = await asyncio.gather(
        *changes,
        ask(gateway, lead, "POST", f"/keys/{key}/revoke"),
        rotating,
        *[ask(gateway, lead, "PATCH", f"/keys/{key}", {"owner": f"{n}"}) for n in range(6)],
    )
    assert {answer.status for answer in answers} <= {200, 400}  # 400: what is revoked is not rotated
    found = await done(gateway, "GET", f"/keys/{key}")
    assert (found["disabled"], found["previous_key_until"]) == (True, None)
