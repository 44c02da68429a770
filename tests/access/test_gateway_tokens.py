"""Tokens of an issuer at a running gateway, beside virtual keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.settings import Settings
from tests.access.issuer import AUDIENCE, Issuer, running_issuer
from tests.access.tenancy import Tenancy, scope
from tests.conftest import StartGateway
from tests.harness import TestGateway


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        yield issuer


def oidc(issuer: Issuer, **more: Any) -> dict[str, Any]:
    roles = "platform=admin, dev=member"
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_roles": roles, **more}


async def status_of(gateway: TestGateway, token: str, path: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with gateway.http.get(f"{gateway.url}{path}", headers=headers) as response:
        return response.status, await response.json()


async def test_members_call_models_and_admins_administer(
    start_gateway: StartGateway, database_url: str, issuer: Issuer
) -> None:
    tenancy = Tenancy(database_url)
    team = await tenancy.team(models=scope("z-ai/*"))
    secret, _ = await tenancy.key()
    gateway = await start_gateway(database_url=database_url, **oidc(issuer))
    token = issuer.token(team=team.name, preferred_username="ada")

    assert (await gateway.chat(authorization=f"Bearer {token}"))[0] == 200
    row = await gateway.row()
    assert (row.team_id, row.key_id is None) == (team.id, False)
    status, told = await status_of(gateway, token, "v1/me")
    assert (status, told["kind"], told["name"]) == (200, "token", "ada")
    assert told["usage"]["today"]["requests"] == 1
    assert (await status_of(gateway, token, f"v1/requests/{row.request_id}"))[0] == 200
    other = issuer.token(team=team.name, sub="bob")
    assert (await status_of(gateway, other, f"v1/requests/{row.request_id}"))[0] == 404

    admin = issuer.token(role="platform")
    assert (await gateway.chat(authorization=f"Bearer {admin}"))[0] == 403
    assert (await status_of(gateway, admin, "v1/usage?by=team"))[1]["data"][0]["team_name"] == team.name
    assert (await status_of(gateway, secret, "v1/models"))[0] == 200


async def test_what_is_wrong_is_told_by_its_status(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await start_gateway(**oidc(issuer))
    for token, status in (
        (issuer.token(team="nowhere"), 403),
        (issuer.token(role="intern"), 403),
        (issuer.token(aud="elsewhere"), 401),
        ("a.b.c", 401),
    ):
        assert (await status_of(gateway, token, "v1/models"))[0] == status
    async with gateway.http.get(gateway.url / "v1/models") as response:
        assert response.status == 401  # an issuer closes the gateway


async def test_what_no_database_takes_in_a_token_is_no_outage(
    start_gateway: StartGateway, database_url: str, issuer: Issuer
) -> None:
    gateway = await start_gateway(database_url=database_url, **oidc(issuer))
    for team in ("\x00", "a\x00b", "\ud800"):
        assert (await status_of(gateway, issuer.token(team=team), "v1/models"))[0] == 403
    token = issuer.token(role="platform", sub="a\x00b", preferred_username="\ud800c")
    admin = {"Authorization": f"Bearer {token}"}
    async with gateway.http.post(gateway.url / "admin/teams", headers=admin, json={"name": "t"}) as response:
        assert response.status == 201, await response.text()
    async with gateway.http.get(gateway.url / "admin/audit", headers=admin) as response:
        assert [each["actor"] for each in (await response.json())["data"]] == ["token:ab (?c)"]


async def test_an_issuer_that_is_away_is_503(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = await start_gateway(**oidc(issuer, oidc_team_claim=""))
    issuer.status = 500
    status, answer = await status_of(gateway, issuer.token(), "v1/models")
    assert (status, answer["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"oidc_issuer": "https://a.example", "oidc_roles": "*=member"}, "OIDC_AUDIENCE"),
        ({"oidc_issuer": "https://a.example", "oidc_audience": "x"}, "OIDC_ROLES"),
        ({"oidc_issuer": "https://a.example", "oidc_audience": "x", "oidc_roles": "a=king"}, "'king' is no role"),
        ({"oidc_issuer": "https://a.example", "oidc_audience": "x", "oidc_roles": "a"}, "pattern"),
        ({"oidc_issuer": "http://a.example", "oidc_audience": "x", "oidc_roles": "*=member"}, "must begin with https"),
        ({"oidc_jwks_url": "http://a.example/keys"}, "must begin with https"),
    ],
)
def test_settings_that_would_let_in_the_wrong_ones_are_refused(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(**settings)  # type: ignore[arg-type]
