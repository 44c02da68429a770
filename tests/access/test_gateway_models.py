"""Which models a key sees and may call at a running gateway with a configuration file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.domain.access.model_scope import ModelScope
from tests.access.tenancy import Tenancy, scope
from tests.harness import HELLO, TestGateway, Upstream, gateway_over

MASTER = "sk-master"


def file_of(upstream: Upstream, cheap: str) -> str:
    return f"""
providers:
  one: {{base_url: "{upstream.url}", usage_in_streams: always}}
models:
  fast: {{deployments: [{{provider: one, model: first/fast}}]}}
  large: {{deployments: [{{provider: one, model: first/large}}]}}
  "any/*": {{deployments: [{{provider: one, model: "*"}}]}}
aliases: {{quick: fast}}
model_groups: {{cheap: {cheap}}}
"""


@pytest.fixture
def path(tmp_path: Path, upstream: Upstream) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(file_of(upstream, "[quick]"))
    return path


@pytest.fixture
async def gateway(path: Path, upstream: Upstream, sqlite_url: str) -> AsyncIterator[TestGateway]:
    upstream.models = [{"id": "x"}, {"id": "y"}]
    async with gateway_over(
        upstream.url, sqlite_url, llmgateway_config=str(path), llmgateway_master_key=MASTER
    ) as gateway:
        yield gateway


async def call(gateway: TestGateway, secret: str, path: str, body: Any = None) -> tuple[int, Any]:
    method = "GET" if body is None else "POST"
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    async with gateway.http.request(method, gateway.url / path, headers=headers, data=data) as response:
        return response.status, await response.json()


async def listed(gateway: TestGateway, secret: str) -> set[str]:
    _, answer = await call(gateway, secret, "v1/models")
    return {model["id"] for model in answer["data"]}


async def test_a_key_sees_and_calls_what_it_may(
    gateway: TestGateway, sqlite_tenancy: Tenancy, upstream: Upstream
) -> None:
    """An alias is a name of its own: who may use it may not use what it leads to by that name, nor the reverse."""
    secret, _ = await sqlite_tenancy.key(models=scope("quick", "any/x"))
    assert await listed(gateway, secret) == {"quick", "any/x"}
    for model, may in (("quick", True), ("any/x", True), ("fast", False), ("large", False), ("any/y", False)):
        assert (await call(gateway, secret, f"v1/models/{model}"))[0] == (200 if may else 404)
        for path in ("v1/chat/completions", "chat/completions", "v1/route"):
            before = upstream.calls
            status, answer = await call(gateway, secret, path, {**HELLO, "model": model})
            assert status == (200 if may else 403), (path, model, answer)
            if not may:
                assert (answer["error"]["code"], answer["error"]["param"]) == ("model_not_allowed", "model")
                assert upstream.calls == before


async def test_who_is_not_limited_sees_all(gateway: TestGateway, sqlite_tenancy: Tenancy) -> None:
    secret, _ = await sqlite_tenancy.key()
    assert (
        await listed(gateway, secret) == {"fast", "large", "quick", "any/x", "any/y"} == await listed(gateway, MASTER)
    )


async def test_rights_only_shrink(gateway: TestGateway, sqlite_tenancy: Tenancy) -> None:
    organisation = await sqlite_tenancy.organisation(models=scope("fast", "any/*"))
    team = await sqlite_tenancy.team(organisation.id, models=scope("large", "any/*"))
    for models, seen in ((ModelScope(), {"any/x", "any/y"}), (scope("fast", "large", "any/x"), {"any/x"})):
        secret, _ = await sqlite_tenancy.key(team_id=team.id, models=models)
        assert await listed(gateway, secret) == seen


async def test_a_group_is_what_the_configuration_says_now(
    gateway: TestGateway, sqlite_tenancy: Tenancy, path: Path, upstream: Upstream
) -> None:
    secret, _ = await sqlite_tenancy.key(models=scope("group:cheap"))
    assert await listed(gateway, secret) == {"quick"}
    path.write_text(file_of(upstream, '[fast, "any/*"]'))
    assert (await call(gateway, MASTER, "admin/config/reload", {}))[0] == 200
    assert await listed(gateway, secret) == {"fast", "any/x", "any/y"}


async def test_a_stream_and_an_idempotent_request_are_refused_as_well(
    gateway: TestGateway, sqlite_tenancy: Tenancy, upstream: Upstream
) -> None:
    secret, _ = await sqlite_tenancy.key(models=scope("fast"))
    for more in ({}, {"Idempotency_Key": "k1"}):
        for members in ({"model": "large"}, {"model": "fast", "models": ["large"]}, {"model": "fast", "preset": "p"}):
            for stream in (False, True):
                body = {**HELLO, **members, "stream": stream}
                status, _, _ = await gateway.chat(body, Authorization=f"Bearer {secret}", **more)
                assert status == 403
    assert upstream.calls == 0
