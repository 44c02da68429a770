"""An organisation with a team, and one of everybody who may or may not administer it; and how they ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope, Subject
from tests.access.tenancy import Tenancy, budget, limit, scope
from tests.harness import TestGateway

MASTER = "sk-administrator"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any
    content_type: str = ""


async def ask(
    gateway: TestGateway, secret: str | None, method: str, path: str, body: Mapping[str, Any] | None = None
) -> Answer:
    """Of /admin, with a JSON body if there is one."""
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with gateway.http.request(method, f"{gateway.url}admin{path}", headers=headers, json=body) as response:
        told = await response.json(content_type=None) if await response.read() else None
        return Answer(response.status, told, response.content_type)


async def done(
    gateway: TestGateway, method: str, path: str, body: Mapping[str, Any] | None = None, by: str = MASTER
) -> Any:
    """The body of an answer that must not be a refusal."""
    answer = await ask(gateway, by, method, path, body)
    assert answer.status < 300, answer
    return answer.body


@dataclass(frozen=True, slots=True)
class Company:
    """Secrets by who holds them, and ids of what they are part of."""

    tenancy: Tenancy
    secrets: Mapping[str, str]
    ids: Mapping[str, str]

    async def target(self) -> dict[str, str]:
        """The ids of a new member of the team, with a budget and a limit."""
        team_id, organisation_id = self.ids["team_id"], self.ids["organisation_id"]
        _, key = await self.tenancy.key(name=f"member {uuid4()}", team_id=team_id, organisation_id=organisation_id)
        subject = Subject(Scope.KEY, str(key.id))
        money, rate = budget(subject), limit(subject, requests_per_minute=100)
        await self.tenancy.add(money)
        await self.tenancy.add(rate)
        return {**self.ids, "key": str(key.id), "budget": str(money.id), "limit": str(rate.id)}


async def company(tenancy: Tenancy) -> Company:
    organisation, other_organisation = await tenancy.organisation(), await tenancy.organisation()
    team, sibling = await tenancy.team(organisation.id), await tenancy.team(organisation.id)
    in_team = {"team_id": team.id, "organisation_id": organisation.id}
    lead = {"role": Role.TEAM_ADMIN, "calls_models": False}
    people: dict[str, dict[str, Any]] = {
        "member": in_team,
        "lead": in_team | lead,
        "restricted lead": in_team | lead | {"models": scope("gpt-*")},
        "lead with endpoints": in_team | lead | {"endpoints": frozenset({"models", "usage", "requests"})},
        "lead of another team": {"team_id": sibling.id, "organisation_id": organisation.id, **lead},
        "head": {"organisation_id": organisation.id, "role": Role.ORGANISATION_ADMIN, "calls_models": False},
        "head of another": {
            "organisation_id": other_organisation.id,
            "role": Role.ORGANISATION_ADMIN,
            "calls_models": False,
        },
        "auditor of the team": in_team | {"role": Role.AUDITOR, "calls_models": False},
        "auditor": {"role": Role.AUDITOR, "calls_models": False},
        "administrator": {"role": Role.ADMIN, "calls_models": False},
    }
    made = {who: await tenancy.key(name=who, **members) for who, members in people.items()}
    ids = {
        "organisation_id": str(organisation.id),
        "other_organisation_id": str(other_organisation.id),
        "team_id": str(team.id),
        "sibling_id": str(sibling.id),
        **{f"{who} id": str(key.id) for who, (_, key) in made.items()},
    }
    return Company(tenancy, {**{who: secret for who, (secret, _) in made.items()}, "master": MASTER}, ids)
