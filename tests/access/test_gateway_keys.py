"""Virtual keys at a running gateway: who is let in, to what, and for how long."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import openai
import pytest

from proxy.domain.access.permissions import Role
from proxy.domain.access.tenants import VirtualKey
from tests.access.tenancy import NOW, Tenancy, scope
from tests.conftest import StartGateway
from tests.gateway.raw_http import connected, request_bytes
from tests.harness import HELLO, TestGateway, Upstream

MASTER = "sk-master"
REVOKED_WITHIN_SECONDS = 1.0


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def status_with(gateway: TestGateway, secret: str, path: str = "v1/models") -> int:
    async with gateway.http.get(f"{gateway.url}{path}", headers=bearer(secret)) as response:
        return response.status


async def error_of(gateway: TestGateway, method: str, path: str, secret: str | None) -> tuple[int, Any]:
    headers = {} if secret is None else bearer(secret)
    async with gateway.http.request(method, gateway.url / path, headers=headers) as response:
        return response.status, (await response.json())["error"]


async def problem_of(gateway: TestGateway, path: str, secret: str | None) -> tuple[int, Any]:
    """The admin API's answer to a POST."""
    headers = {} if secret is None else bearer(secret)
    async with gateway.http.post(gateway.url / path, headers=headers) as response:
        return response.status, await response.json(content_type="application/problem+json")


@pytest.fixture
async def gateway(start_gateway: StartGateway, sqlite_url: str) -> TestGateway:
    """One that asks for keys."""
    return await start_gateway(llmgateway_master_key=MASTER)


# Whether keys are asked for


async def test_without_any_key_everyone_is_let_in(start_gateway: StartGateway, database_url: str) -> None:
    gateway = await start_gateway(database_url=database_url)
    assert (await gateway.chat())[0] == 200


async def test_as_soon_as_there_is_a_key_one_is_asked_for(
    start_gateway: StartGateway, database_url: str, tenancy: Tenancy
) -> None:
    gateway = await start_gateway(database_url=database_url)
    assert (await gateway.chat())[0] == 200
    secret, key = await tenancy.key()
    async with asyncio.timeout(10):
        while (await gateway.chat())[0] != 401:
            await asyncio.sleep(0.01)
    assert (await gateway.chat(**bearer(secret)))[0] == 200
    await tenancy.delete("virtual_keys", key.id)
    async with asyncio.timeout(10):
        while (await gateway.chat())[0] != 200:
            await asyncio.sleep(0.01)


async def test_a_start_with_keys_asks_for_them_from_the_first_request(
    start_gateway: StartGateway, database_url: str, tenancy: Tenancy
) -> None:
    secret, _ = await tenancy.key()
    gateway = await start_gateway(database_url=database_url)
    assert (await gateway.chat())[0] == 401
    assert (await gateway.chat(**bearer(secret)))[0] == 200


async def test_keys_can_be_asked_for_always(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_require_keys="always")
    status, _, answer = await gateway.chat()
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


async def test_keys_can_be_asked_for_never_and_are_honoured_all_the_same(
    start_gateway: StartGateway, sqlite_tenancy: Tenancy
) -> None:
    secret, _ = await sqlite_tenancy.key(models=scope("other"))
    gateway = await start_gateway(llmgateway_require_keys="never", llmgateway_master_key=MASTER)
    assert (await gateway.chat())[0] == 200
    assert (await gateway.chat(**bearer("sk-of-somewhere-else-entirely")))[0] == 200
    assert (await gateway.chat(**bearer(secret)))[0] == 403


async def test_without_a_database_it_is_not_known_whether_keys_are_asked_for(start_gateway: StartGateway) -> None:
    nowhere = "postgresql://me@127.0.0.1:1/x"
    gateway = await start_gateway(database_url=nowhere)
    status, headers, answer = await gateway.chat()
    assert (status, answer["error"]["code"], headers["retry-after"]) == (503, "service_unavailable", "2")
    assert "LLMGATEWAY_REQUIRE_KEYS" in answer["error"]["message"]
    assert (await gateway.get("health"))[0] == 200
    open_gateway = await start_gateway(database_url=nowhere, llmgateway_require_keys="never")
    assert (await open_gateway.chat(**bearer("sk-0123456789abcdef0123")))[0] == 200


async def test_without_a_database_a_key_that_is_not_known_is_not_called_wrong(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        database_url="postgresql://me@127.0.0.1:1/x",
        llmgateway_master_key=MASTER,
        llmgateway_master_key_calls_models=True,
    )
    status, headers, answer = await gateway.chat(**bearer("sk-0123456789abcdef0123"))
    assert (status, headers["retry-after"]) == (503, "2")
    assert "database" in answer["error"]["message"]
    assert (await gateway.chat(**bearer("no-virtual-key")))[0] == 401
    assert (await gateway.chat())[0] == 401
    assert (await gateway.chat(**bearer(MASTER)))[0] == 200


# Who is who


async def test_a_key_calls_models_and_is_not_sent_on(
    gateway: TestGateway, sqlite_tenancy: Tenancy, upstream: Upstream
) -> None:
    secret, _ = await sqlite_tenancy.key()
    async with openai.AsyncOpenAI(base_url=str(gateway.url / "v1"), api_key=secret) as client:
        answer = await client.chat.completions.create(**HELLO)
    assert answer.choices[0].message.content == "Hi there!"
    assert upstream.headers[0]["Authorization"] == "Bearer sk-or-provider-secret"


async def test_one_connection_is_every_callers_own(
    gateway: TestGateway, sqlite_tenancy: Tenancy, upstream: Upstream
) -> None:
    """A balancer sends the requests of all over a few connections: what is known of the last one is not of the next."""
    keys = [await sqlite_tenancy.key() for _ in range(2)]
    body = json.dumps(HELLO).encode()

    async def status(secret: str | None) -> int:
        headers = [] if secret is None else [f"Authorization: Bearer {secret}".encode()]
        await connection.send(request_bytes(body, *headers))
        return (await connection.answer()).status

    async with connected(gateway.url) as connection:
        for secret, key in (keys[0], keys[0], keys[1], keys[0]):
            assert await status(secret) == 200
            rows = await gateway.rows(upstream.calls)
            assert max(rows, key=lambda row: row.timestamp).key_id == key.id
        assert await status(None) == 401
        assert await status(keys[1][0][:-1] + "?") == 401
        await sqlite_tenancy.delete("virtual_keys", keys[0][1].id)
        async with asyncio.timeout(10):
            while await status(keys[0][0]) != 401:
                await asyncio.sleep(0.01)
        assert await status(keys[1][0]) == 200


async def test_the_master_key_calls_no_models(gateway: TestGateway, upstream: Upstream) -> None:
    status, _, answer = await gateway.chat(**bearer(MASTER))
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (403, "permission_denied", "permission_error")
    assert "llmgateway keys create" in answer["error"]["message"]
    assert "LLMGATEWAY_MASTER_KEY_CALLS_MODELS" in answer["error"]["message"]
    assert upstream.calls == 0
    for path in ("v1/models", "v1/usage?by=model"):
        assert await status_with(gateway, MASTER, path) == 200


@pytest.mark.parametrize(
    "members",
    [{"disabled": True}, {"expires_at": NOW - timedelta(days=1000)}],
    ids=["disabled", "expired"],
)
async def test_a_key_that_is_not_good_is_told_no_more_than_a_stranger(
    gateway: TestGateway, sqlite_tenancy: Tenancy, members: dict[str, Any]
) -> None:
    secret, _ = await sqlite_tenancy.key(**members)
    refused = await error_of(gateway, "GET", "v1/models", secret)
    assert refused == await error_of(gateway, "GET", "v1/models", "sk-unknown-unknown-unknown")
    assert refused[0] == 401


async def test_two_authorizations_are_none(gateway: TestGateway, sqlite_tenancy: Tenancy) -> None:
    secret, _ = await sqlite_tenancy.key()
    headers = [("Authorization", f"Bearer {secret}"), ("Authorization", "Bearer sk-other")]
    for each in (headers, headers[::-1], [headers[0], headers[0]]):
        async with gateway.http.get(gateway.url / "v1/models", headers=each) as response:
            assert response.status == 401


async def test_an_imported_key_works_by_its_hash(gateway: TestGateway, sqlite_tenancy: Tenancy) -> None:
    """LiteLLM keeps SHA-256, too, and makes keys that are shorter than ours."""
    from hashlib import sha256

    imported = "sk-" + "a1B2_c3D4-e5F6g7H8i9J0"
    await sqlite_tenancy.key(hash=sha256(imported.encode()).hexdigest())
    assert await status_with(gateway, imported) == 200


# Revocation


async def end(tenancy: Tenancy, key: VirtualKey, how: str) -> None:
    if how == "deleted":
        await tenancy.delete("virtual_keys", key.id)
    elif how == "rotated":
        await tenancy.change("virtual_keys", key.id, hash="0" * 64)
    else:
        id_ = {"virtual_keys": key.id, "teams": key.team_id, "organisations": key.organisation_id}[how]
        assert id_ is not None
        await tenancy.change(how, id_, disabled=True)


@pytest.mark.parametrize("how", ["virtual_keys", "teams", "organisations", "deleted", "rotated"])
async def test_a_revoked_key_dies_in_every_gateway_within_a_second(
    start_gateway: StartGateway, database_url: str, tenancy: Tenancy, how: str
) -> None:
    organisation = await tenancy.organisation()
    team = await tenancy.team(organisation.id)
    secret, key = await tenancy.key(team_id=team.id, organisation_id=organisation.id)
    gateways = [await start_gateway(database_url=database_url, llmgateway_require_keys="always") for _ in range(2)]
    for gateway in gateways * 2:
        assert (await gateway.chat(**bearer(secret)))[0] == 200
    await end(tenancy, key, how)
    revoked_at = time.monotonic()
    for gateway in gateways:
        while (await gateway.chat(**bearer(secret)))[0] != 401:
            assert time.monotonic() - revoked_at < REVOKED_WITHIN_SECONDS
            await asyncio.sleep(0.01)


async def test_a_new_key_is_good_at_once_in_every_gateway(
    start_gateway: StartGateway, database_url: str, tenancy: Tenancy
) -> None:
    gateways = [await start_gateway(database_url=database_url, llmgateway_require_keys="always") for _ in range(2)]
    for _ in range(3):
        secret, _ = await tenancy.key()
        assert [(await gateway.chat(**bearer(secret)))[0] for gateway in gateways] == [200, 200]


# What a key may do


async def test_a_key_may_be_limited_to_endpoints(gateway: TestGateway, sqlite_tenancy: Tenancy) -> None:
    chats, _ = await sqlite_tenancy.key(endpoints=frozenset({"chat.completions"}))
    lists, _ = await sqlite_tenancy.key(endpoints=frozenset({"models"}))
    nothing, _ = await sqlite_tenancy.key(endpoints=frozenset())
    assert [(await gateway.chat(**bearer(secret)))[0] for secret in (chats, lists, nothing)] == [200, 403, 403]
    assert [await status_with(gateway, secret) for secret in (chats, lists, nothing)] == [403, 200, 403]
    status, error = await error_of(gateway, "GET", "v1/models", chats)
    assert (status, error["code"]) == (403, "permission_denied")
    assert "chat.completions" in error["message"]


async def test_only_those_with_the_permission_load_the_configuration(
    gateway: TestGateway, sqlite_tenancy: Tenancy
) -> None:
    team = await sqlite_tenancy.team()
    refused = [
        (await sqlite_tenancy.key())[0],
        (await sqlite_tenancy.key(role=Role.AUDITOR))[0],
        (await sqlite_tenancy.key(role=Role.ADMIN, team_id=team.id))[0],
        (await sqlite_tenancy.key(role=Role.ADMIN, endpoints=frozenset({"models"})))[0],
    ]
    for secret in refused:
        assert (await problem_of(gateway, "admin/config/reload", secret))[0] == 403
    for secret in (MASTER, (await sqlite_tenancy.key(role=Role.ADMIN))[0]):
        assert (await problem_of(gateway, "admin/config/reload", secret))[0] == 422  # there is no file


@pytest.mark.parametrize("path", ["admin/config/reload", "admin", "admin/anything"])
async def test_nobody_administers_an_open_gateway(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway()
    for secret in (None, "anything"):
        status, problem = await problem_of(gateway, path, secret)
        assert (status, problem["type"]) == (403, "urn:llmgateway:permission_denied")
        assert "LLMGATEWAY_MASTER_KEY" in problem["detail"]


async def test_idempotency_keys_belong_to_who_sent_them(
    gateway: TestGateway, sqlite_tenancy: Tenancy, upstream: Upstream
) -> None:
    """Also across a rotation: the key is the same, though its secret is another one."""
    (one, key), (other, _) = await sqlite_tenancy.key(), await sqlite_tenancy.key()
    for secret in (one, other):
        assert "idempotent-replayed" not in (await gateway.chat(Idempotency_Key="k1", **bearer(secret)))[1]
    assert upstream.calls == 2
    await sqlite_tenancy.change("virtual_keys", key.id, disabled=True)
    async with asyncio.timeout(10):
        while (await gateway.chat(Idempotency_Key="k1", **bearer(one)))[0] != 401:
            await asyncio.sleep(0.01)
