"""Nothing of one tenant is in what another one is told, on any route that tells anything.

Two organisations, each with a team, a member's key and an administrator's for its team and for all of it. All have
names, budgets, requests and end users whose marks would be seen in an answer. A route that is in no table fails here.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from proxy.bootstrap.gateway import running_gateway
from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope, Subject
from proxy.infrastructure.persistence.database import open_database
from tests.access.tenancy import Tenancy, budget, limit
from tests.access.test_routes import routes_of, settings_of
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, gateway_over, says

# They hold nothing of anybody's: what the gateway is, not what is done with it.
NOBODYS = {
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/accepting"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/{name}"),
    ("GET", "/v1/models"),  # the catalogue; what a key may use of it is tested with its scopes
    ("GET", "/models"),
    ("GET", "/v1/models/{model_id}"),
    ("GET", "/models/{model_id}"),
    ("POST", "/v1/route"),  # a plan, and the state of deployments
    ("POST", "/chat/completions"),  # the same handler as with /v1
}
# For the whole gateway's administrators only: tenants get 403.
CLOSED = {
    ("GET", "/metrics"),
    ("POST", "/admin/config/reload"),
    ("POST", "/admin/organisations"),
    ("PATCH", "/admin/organisations/{id}"),
    ("GET", "/admin/prices"),
    ("POST", "/admin/prices"),
    ("GET", "/admin/deployments"),
    ("GET", "/admin/deployments/{name}"),
    ("POST", "/admin/deployments/{name}/drain"),
    ("POST", "/admin/deployments/{name}/enable"),
}
# What is asked, with the other tenant's ids and names in place of `{…}`.
ASKED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("GET", "/v1/me"): ("/v1/me",),
    ("GET", "/v1/usage"): (
        *(f"/v1/usage?by={by}" for by in ("key", "team", "organisation", "model", "provider", "status", "day")),
        *(f"/v1/usage?by=key&{of}" for of in ("key={key_id}", "key={key_name}", "team={team_id}", "team={team_name}")),
        "/v1/usage?by=team&organisation={organisation_id}",
        "/v1/usage?by=team&organisation={organisation_name}",
    ),
    ("GET", "/v1/requests/{request_id}"): ("/v1/requests/{request_id}", "/v1/requests/{row_id}", "/v1/requests/shared"),
    ("POST", "/v1/chat/completions"): (),  # see call_models: one's answer is not replayed to another
    ("GET", "/admin/organisations"): ("/admin/organisations", "/admin/organisations?name={organisation_name}"),
    ("GET", "/admin/organisations/{id}"): (
        "/admin/organisations/{organisation_id}",
        "/admin/organisations/{organisation_name}",
    ),
    ("GET", "/admin/teams"): (
        "/admin/teams",
        "/admin/teams?name={team_name}",
        "/admin/teams?after={team_id}",
        "/admin/teams?organisation={organisation_id}",
        "/admin/teams?organisation={organisation_name}",
    ),
    ("GET", "/admin/teams/{id}"): ("/admin/teams/{team_id}", "/admin/teams/{team_name}"),
    ("GET", "/admin/keys"): (
        "/admin/keys",
        "/admin/keys?after={key_id}",
        *(f"/admin/keys?{name}={{{name}_{of}}}" for name in ("team", "organisation") for of in ("id", "name")),
        "/admin/keys?name={key_name}",
    ),
    ("GET", "/admin/keys/{id}"): ("/admin/keys/{key_id}", "/admin/keys/{key_name}"),
    **{
        ("GET", f"/admin/{kind}"): (
            f"/admin/{kind}",
            f"/admin/{kind}?after={{{kind[:-1]}_id}}",
            *(
                f"/admin/{kind}?scope={name}&subject={{{name}_{of}}}"
                for name in ("organisation", "team", "key")
                for of in ("id", "name")
            ),
        )
        for kind in ("budgets", "limits")
    },
    ("GET", "/admin/budgets/{id}"): ("/admin/budgets/{budget_id}",),
    ("GET", "/admin/limits/{id}"): ("/admin/limits/{limit_id}",),
    ("GET", "/admin/usage"): ("/admin/usage?by=key", "/admin/usage?by=key&key={key_id}"),
    ("GET", "/admin/requests"): (
        "/admin/requests",
        "/admin/requests?after={row_id}",
        *(f"/admin/requests?{name}={{{name}_{of}}}" for name in ("key", "team") for of in ("id", "name")),
        "/admin/requests?request_id={request_id}",
    ),
    ("GET", "/admin/audit"): ("/admin/audit", "/admin/audit?object={team_id}", "/admin/audit?object={key_id}"),
}
# What would change something of the other tenant's, with what is sent.
CHANGES: Mapping[tuple[str, str], tuple[tuple[str, Mapping[str, Any]], ...]] = {
    ("POST", "/admin/teams"): (("/admin/teams", {"name": "new", "organisation": "{organisation_id}"}),),
    ("PATCH", "/admin/teams/{id}"): (("/admin/teams/{team_id}", {"disabled": True}),),
    ("POST", "/admin/keys"): (
        ("/admin/keys", {"name": "new", "team": "{team_id}"}),
        ("/admin/keys", {"name": "new", "organisation": "{organisation_id}"}),
    ),
    ("PATCH", "/admin/keys/{id}"): (
        ("/admin/keys/{key_id}", {"disabled": True}),
        ("/admin/keys/{key_name}", {"disabled": True}),
    ),
    ("POST", "/admin/keys/{id}/rotate"): (("/admin/keys/{key_id}/rotate", {}), ("/admin/keys/{key_name}/rotate", {})),
    ("POST", "/admin/keys/{id}/revoke"): (("/admin/keys/{key_id}/revoke", {}),),
    ("POST", "/admin/budgets"): tuple(
        ("/admin/budgets", {"name": "new", "amount_usd": "1", "scope": scope, "subject": f"{{{scope}_{of}}}"})
        for scope in ("organisation", "team", "key")
        for of in ("id", "name")
    ),
    ("PATCH", "/admin/budgets/{id}"): (("/admin/budgets/{budget_id}", {"amount_usd": "1"}),),
    ("DELETE", "/admin/budgets/{id}"): (("/admin/budgets/{budget_id}", {}),),
    ("POST", "/admin/limits"): tuple(
        ("/admin/limits", {"requests_per_minute": 1, "scope": scope, "subject": f"{{{scope}_{of}}}"})
        for scope in ("organisation", "team", "key")
        for of in ("id", "name")
    ),
    ("PATCH", "/admin/limits/{id}"): (("/admin/limits/{limit_id}", {"requests_per_minute": 1}),),
    ("DELETE", "/admin/limits/{id}"): (("/admin/limits/{limit_id}", {}),),
}
_UUID = re.compile("[0-9a-f-]{36}")
ADMINISTRATORS = ("lead", "head")


@dataclass
class Tenant:
    """One of the two. `marks` would be seen in what another one is told; `names` fill the places in what is asked."""

    secrets: dict[str, str]
    marks: set[str]
    names: dict[str, str]


async def tenant(tenancy: Tenancy, letter: str) -> Tenant:
    organisation = await tenancy.organisation()
    team = await tenancy.team(organisation.id)
    of_team = {"team_id": team.id}
    people: dict[str, dict[str, Any]] = {
        "member": {**of_team, "tags": (f"tag-of-{letter}",)},
        "lead": {**of_team, "role": Role.TEAM_ADMIN},
        "auditor": {**of_team, "role": Role.AUDITOR, "calls_models": False},
        "head": {"organisation_id": organisation.id, "role": Role.ORGANISATION_ADMIN},
    }
    made = {who: await tenancy.key(name=f"{who}-of-{letter}", **members) for who, members in people.items()}
    member = made["member"][1]
    names = {
        "key_id": str(member.id),
        "key_name": member.name,
        "team_id": str(team.id),
        "team_name": team.name,
        "organisation_id": str(organisation.id),
        "organisation_name": organisation.name,
        "request_id": f"request-of-{letter}",
    }
    keys = {mark for _, key in made.values() for mark in (str(key.id), key.name, key.hint, key.hash)}
    marks = {*names.values(), *keys, f"tag-of-{letter}", f"user-of-{letter}", f"answer-for-{letter}"}
    return Tenant({who: secret for who, (secret, _) in made.items()}, marks, names)


async def call_models(gateway: TestGateway, upstream: Upstream, one: Tenant, letter: str) -> None:
    """Two requests, one of them under an id that the other tenant uses, too."""
    answer = {**COMPLETION, "choices": [{**COMPLETION["choices"][0], "message": {"content": f"answer-for-{letter}"}}]}
    for request_id in (f"request-of-{letter}", "shared"):
        upstream.answer(says(answer))
        status, headers, body = await gateway.raw_chat(
            {**HELLO, "user": f"user-of-{letter}"},
            authorization=f"Bearer {one.secrets['member']}",
            x_request_id=request_id,
            idempotency_key="the-same-for-both-" + ("a" if request_id == "shared" else "b"),
        )
        assert (status, "idempotent-replayed" in headers) == (200, False)
        assert f"answer-for-{letter}".encode() in body


async def add_rules(tenancy: Tenancy, one: Tenant) -> None:
    for scope in (Scope.KEY, Scope.TEAM, Scope.ORGANISATION):
        subject = Subject(scope, one.names[f"{scope.value}_id"])
        money, rate = budget(subject), limit(subject, requests_per_minute=100)
        await tenancy.add(money)
        await tenancy.add(rate)
        one.marks |= {str(money.id), str(rate.id)}
        one.names |= {"budget_id": str(money.id), "limit_id": str(rate.id)}


@asynccontextmanager
async def two_tenants(upstream: Upstream, url: str) -> AsyncIterator[tuple[TestGateway, Tenant, Tenant]]:
    """Both have used the gateway, and then were given budgets and limits."""
    async with open_database(url) as database:
        tenancy = Tenancy(url, database)
        both = {letter: await tenant(tenancy, letter) for letter in "ab"}
        async with gateway_over(upstream.url, url, llmgateway_traces="all") as gateway:
            for letter, one in both.items():
                await call_models(gateway, upstream, one, letter)
            for row in await gateway.rows(4):
                one = both["a" if str(row.key_id) == both["a"].names["key_id"] else "b"]
                one.names["row_id"] = str(row.id)
                one.marks.add(str(row.id))
        for one in both.values():
            await add_rules(tenancy, one)
    async with gateway_over(upstream.url, url) as gateway:
        yield gateway, both["a"], both["b"]


async def told(gateway: TestGateway, secret: str, path: str) -> tuple[int, str]:
    """All that an answer says, headers too."""
    async with gateway.http.get(f"{gateway.url}{path[1:]}", headers={"Authorization": f"Bearer {secret}"}) as response:
        return response.status, f"{dict(response.headers)} {await response.text()}"


async def test_every_route_is_in_a_table(sqlite_url: str, tmp_path: Path) -> None:
    async with running_gateway(settings_of(sqlite_url, tmp_path)) as gateway:
        routes = {(method, path) for method, path, _ in routes_of(gateway.app) if method != "HEAD"}
    assert routes == NOBODYS | CLOSED | ASKED.keys() | CHANGES.keys()


async def test_nothing_of_one_tenant_is_told_to_the_other(upstream: Upstream, database_url: str) -> None:
    async with two_tenants(upstream, database_url) as (gateway, one, other):
        for mine, others in ((one, other), (other, one)):
            for who, secret in mine.secrets.items():
                for question in (path for paths in ASKED.values() for path in paths):
                    asked = question.format_map(others.names)
                    status, answer = await told(gateway, secret, asked)
                    refusals = (403, 404) if question.startswith("/admin") else (404,)
                    assert status in (200, *refusals), (who, question, status)
                    # What was asked may stand in a refusal.
                    seen = {mark for mark in others.marks if mark in answer and mark not in asked}
                    assert seen == set(), (who, question)
                    if status == 200:
                        assert not [mark for mark in others.marks if mark in answer], (who, question)


async def test_what_is_anothers_and_what_there_is_not_are_answered_alike(upstream: Upstream, sqlite_url: str) -> None:
    async with two_tenants(upstream, sqlite_url) as (gateway, one, other):
        for secret in one.secrets.values():
            for asked in (other.names["request_id"], other.names["row_id"]):
                unknown = asked[::-1]
                status, body = await error_of(gateway, secret, f"v1/requests/{asked}")
                assert (status, body.replace(asked, unknown)) == await error_of(
                    gateway, secret, f"v1/requests/{unknown}"
                )
            for place in ("key_id", "key_name"):
                query, named = "v1/usage?by=model&key=", other.names[place]
                status, body = await error_of(gateway, secret, query + named)
                assert (status, body.replace(named, "unknown")) == await error_of(gateway, secret, query + "unknown")


async def error_of(gateway: TestGateway, secret: str, path: str) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {secret}"}
    async with gateway.http.get(f"{gateway.url}{path}", headers=headers) as response:
        return response.status, await response.text()


@pytest.mark.parametrize(("who", "requests"), [("member", 2), ("lead", 2), ("auditor", 2), ("head", 2)])
async def test_each_is_told_what_is_within_its_reach(
    upstream: Upstream, sqlite_url: str, who: str, requests: int
) -> None:
    """Else nothing would be told to anybody, and the test above would prove nothing."""
    async with two_tenants(upstream, sqlite_url) as (gateway, one, _):
        secret = one.secrets[who]
        for question in ("/v1/usage?by=key", "/v1/usage?by=team&team={team_name}", "/v1/usage?by=day&key={key_name}"):
            status, answer = await error_of(gateway, secret, question.format_map(one.names)[1:])
            assert (status, json.loads(answer)["total"]["requests"]) == (200, requests)
        for asked in ("request_id", "row_id"):
            status, answer = await error_of(gateway, secret, f"v1/requests/{one.names[asked]}")
            assert (status, json.loads(answer)["key_id"]) == (200, one.names["key_id"])
        status, answer = await told(gateway, secret, "/v1/me")
        assert status == 200
        assert one.names["organisation_name"] in answer


async def test_tenants_do_not_reach_the_whole_gateway(upstream: Upstream, sqlite_url: str) -> None:
    async with two_tenants(upstream, sqlite_url) as (gateway, one, _):
        for secret in one.secrets.values():
            for method, path in CLOSED:
                headers = {"Authorization": f"Bearer {secret}"}
                url = gateway.url / path[1:].format(id="unknown", name="unknown")
                async with gateway.http.request(method, url, headers=headers) as response:
                    assert response.status == 403


def names_of_nothing(names: Mapping[str, str]) -> dict[str, str]:
    """Names and ids of the same form that nothing has."""
    return {name: str(uuid4()) if _UUID.fullmatch(value) else value[::-1] for name, value in names.items()}


def filled(value: Any, names: Mapping[str, str]) -> Any:
    return value.format_map(names) if isinstance(value, str) else value


async def answered(
    gateway: TestGateway, secret: str, method: str, path: str, body: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[int, str]:
    """Status and text, with what was asked for taken out of it."""
    sent = {name: filled(value, names) for name, value in body.items()}
    url = gateway.url / path.format_map(names)[1:]
    headers = {"Authorization": f"Bearer {secret}"}
    async with gateway.http.request(method, url, headers=headers, json=sent or None) as response:
        return response.status, without(names, await response.text())


def without(names: Mapping[str, str], text: str) -> str:
    for name in sorted(names.values(), key=len, reverse=True):
        text = text.replace(name, "…")
    return text


async def test_nobody_changes_what_is_anothers_or_learns_that_it_is_there(
    upstream: Upstream, database_url: str
) -> None:
    """The answer is the one for what there is not."""
    async with two_tenants(upstream, database_url) as (gateway, one, other):
        unknown = names_of_nothing(other.names)
        before = await kept(database_url)
        for who, secret in one.secrets.items():
            for (method, _), changes in CHANGES.items():
                for path, body in changes:
                    status, text = await answered(gateway, secret, method, path, body, other.names)
                    assert status == 404 if who in ADMINISTRATORS and "/teams" not in path else status in (403, 404)
                    assert (status, text) == await answered(gateway, secret, method, path, body, unknown), (who, path)
        assert await kept(database_url) == before


async def kept(url: str) -> list[list[str]]:
    """All rows that are administered."""
    tables = ("organisations", "teams", "virtual_keys", "budgets", "rate_limits", "audit_log")
    async with open_database(url) as database:
        tenancy = Tenancy(url, database)
        return [sorted(str(tuple(row)) for row in await tenancy.fetch(f"SELECT * FROM {table}")) for table in tables]


@pytest.mark.parametrize("kind", ["budgets", "limits", "keys", "requests", "teams"])
async def test_filters_tell_nobody_that_something_is_anothers(upstream: Upstream, sqlite_url: str, kind: str) -> None:
    async with two_tenants(upstream, sqlite_url) as (gateway, one, other):
        for secret in one.secrets.values():
            for question in ASKED["GET", f"/admin/{kind}"]:
                if "{" in question:
                    unknown = names_of_nothing(other.names)
                    foreign, missing = [
                        (status, without(names, text))
                        for names in (other.names, unknown)
                        for status, text in [await error_of(gateway, secret, question.format_map(names)[1:])]
                    ]
                    assert foreign == missing, question


async def test_a_name_that_another_tenant_uses_too_is_ones_own(upstream: Upstream, database_url: str) -> None:
    """Names of keys are not unique: nobody is told of, or hindered by, those of others."""
    async with two_tenants(upstream, database_url) as (gateway, one, other):
        leads = [(mine.secrets["lead"], mine.names["team_id"]) for mine in (one, other)]
        for lead, _ in leads:
            status, _ = await answered(gateway, lead, "POST", "/admin/keys", {"name": "shared"}, {})
            assert status == 201
        for lead, team_id in leads:
            status, text = await told(gateway, lead, "/admin/keys/shared")
            assert (status, team_id in text) == (200, True)
        status, _ = await answered(gateway, leads[0][0], "POST", "/admin/keys", {"name": "shared"}, {})
        assert [(await told(gateway, lead, "/admin/keys/shared"))[0] for lead, _ in leads] == [400, 200]
