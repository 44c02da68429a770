"""GET /v1/me: what a caller is told of itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from proxy.api.openai.schemas import openapi_document
from proxy.domain.access.permissions import Role
from proxy.domain.access.scopes import Scope, Subject
from tests.access.tenancy import Tenancy, budget, limit, scope
from tests.conftest import StartGateway
from tests.harness import TestGateway

DOCUMENT: Any = openapi_document()
NOW = datetime.now(UTC)


def faults(value: Any) -> list[str]:
    schema = {"$ref": "#/components/schemas/Me", "components": DOCUMENT["components"]}
    return [str(problem) for problem in OAS31Validator(schema).iter_errors(value)]


async def me(gateway: TestGateway, secret: str | None) -> tuple[int, Any]:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with gateway.http.get(gateway.url / "v1/me", headers=headers) as response:
        return response.status, await response.json()


async def test_a_key_is_told_its_rights_budgets_and_limits(start_gateway: StartGateway, database_url: str) -> None:
    tenancy = Tenancy(database_url)
    organisation = await tenancy.organisation()
    team = await tenancy.team(organisation.id, models=scope("z-ai/*"))
    expires = datetime(2100, 1, 1, tzinfo=UTC)
    secret, key = await tenancy.key(name="bot", team_id=team.id, tags=("ci",), expires_at=expires)
    of_team = budget(Subject(Scope.TEAM, str(team.id)), "10")
    own = budget(Subject(Scope.KEY, str(key.id)), "0.5")
    for rule in (of_team, own, limit(Subject(Scope.KEY, str(key.id)), requests_per_minute=60)):
        await tenancy.add(rule)
    spend = "INSERT INTO budget_spend (budget_id, subject_id, bucket, picodollars) VALUES ($1, $2, $3, $4)"
    last_month = of_team.window.bucket(of_team.window.bucket(NOW) - timedelta(days=1))
    for one, bucket, picodollars in (
        (of_team, of_team.window.bucket(NOW), 2_500_000_000_001),
        (of_team, last_month, 9 * 10**12),
        (own, own.window.bucket(NOW), 10**12),
    ):
        await tenancy.execute(spend, str(one.id), "", bucket, picodollars)
    gateway = await start_gateway(database_url=database_url)

    status, told = await me(gateway, secret)

    assert status == 200
    assert faults(told) == []
    assert (told["kind"], told["name"], told["reach"]) == ("key", "bot", f"key:{key.id}")
    assert told["permissions"] == ["models:call", "models:read", "self:read"]
    assert told["key"] == {
        "id": str(key.id),
        "hint": key.hint,
        "expires_at": expires.isoformat(),
        "tags": ["ci"],
        "priority": "normal",
    }
    assert told["team"] == {"id": str(team.id), "name": team.name}
    assert told["organisation"] == {"id": str(organisation.id), "name": organisation.name}
    assert "z-ai/glm-4.6" in told["models"]
    assert all(model.startswith("z-ai/") for model in told["models"])
    assert told["limits"] == [{"scope": "key", "requests_per_minute": {"limit": 60, "remaining": 60}}]
    budgets = {one["scope"]: one for one in told["budgets"]}
    assert (budgets["team"]["amount_usd"], budgets["team"]["spent_usd"]) == ("10", "2.500000000001")
    assert budgets["team"]["remaining_usd"] == "7.499999999999"
    assert datetime.fromisoformat(budgets["team"]["resets_at"]) == of_team.window.resets_at(NOW)
    assert (budgets["key"]["spent_usd"], budgets["key"]["remaining_usd"]) == ("1", "0")
    assert secret not in str(told)
    assert key.hash not in str(told)


async def test_usage_is_ones_own(start_gateway: StartGateway, database_url: str) -> None:
    tenancy = Tenancy(database_url)
    team = await tenancy.team()
    secrets = [(await tenancy.key(team_id=team.id))[0] for _ in range(2)]
    lead, _ = await tenancy.key(team_id=team.id, role=Role.TEAM_ADMIN, calls_models=False)
    gateway = await start_gateway(database_url=database_url)
    for secret in (secrets[0], secrets[0], secrets[1]):
        assert (await gateway.chat(authorization=f"Bearer {secret}"))[0] == 200
    rows = await gateway.rows(3)
    assert {row.team_id for row in rows} == {team.id}

    for secret, requests in ((secrets[0], 2), (secrets[1], 1), (lead, 0)):
        _, told = await me(gateway, secret)
        assert faults(told) == []
        assert told["usage"]["today"]["requests"] == told["usage"]["this_month"]["requests"] == requests
        assert told["usage"]["today"]["input_tokens"] == 10 * requests


@pytest.mark.parametrize("master", [None, "sk-master"])
async def test_who_has_no_key_of_its_own_is_told_of_all(start_gateway: StartGateway, master: str | None) -> None:
    gateway = await start_gateway(llmgateway_master_key=master, llmgateway_master_key_calls_models=True)
    await gateway.chat(authorization=f"Bearer {master}")
    await gateway.row()

    status, told = await me(gateway, master)

    assert status == 200
    assert faults(told) == []
    assert told["kind"] == ("master" if master else "anonymous")
    assert (told["key"], told["team"], told["organisation"], told["budgets"]) == (None, None, None, [])
    assert (told["usage"]["of"], told["usage"]["today"]["requests"]) == ("gateway", 1)


async def test_a_database_that_is_away_is_503(start_gateway: StartGateway, sqlite_url: str, tmp_path: Path) -> None:
    secret, _ = await Tenancy(sqlite_url).key()
    gateway = await start_gateway()
    assert (await me(gateway, secret))[0] == 200
    (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")

    status, answer = await me(gateway, secret)

    assert (status, answer["error"]["type"]) == (503, "server_error")
