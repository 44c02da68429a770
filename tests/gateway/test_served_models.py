"""GET /v1/models over a catalog: what stands behind wildcards, and providers that do not tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.gateway.test_configuration import Start, second, start
from tests.harness import AS_ADMIN, TestGateway, Upstream, stall

__all__ = ["second", "start"]

PROVIDERS = """
providers:
  one: {{base_url: "{one}", kind: {kind}}}
  two: {{base_url: "{two}"}}
models:
"""


def config(one: Upstream, two: Upstream, models: str, kind: str = "openai") -> str:
    return PROVIDERS.format(one=one.url, two=two.url, kind=kind) + models


def wildcard(pattern: str, provider: str, model: str = "*") -> str:
    return f'  "{pattern}":\n    deployments: [{{provider: {provider}, model: "{model}"}}]\n'


async def listed(gateway: TestGateway) -> list[str]:
    status, body = await gateway.get("/v1/models")
    assert status == 200
    return [model["id"] for model in body["data"]]


def named(*names: str) -> list[dict[str, object]]:
    return [{"id": name} for name in names]


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_provider_that_fails_has_no_models(
    start: Start, upstream: Upstream, second: Upstream, status: int
) -> None:
    """The price table holds OpenRouter's names: another provider does not have those models."""
    upstream.models, second.models_status = named("a"), status
    gateway = await start(config(upstream, second, wildcard("one/*", "one") + wildcard("two/*", "two")))
    assert await listed(gateway) == ["one/a"]


async def test_openrouters_models_are_those_of_the_price_table_while_it_does_not_tell(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    upstream.models_status = 500
    gateway = await start(config(upstream, second, wildcard("or/*", "one"), kind="openrouter"))
    assert "or/z-ai/glm-4.6" in await listed(gateway)


async def test_each_name_is_listed_where_it_leads(start: Start, upstream: Upstream, second: Upstream) -> None:
    """A pattern takes no names that a more specific one takes, whether or not its provider has them."""
    upstream.models, second.models = named("a", "two/x", "two/y", "auto"), named("x")
    gateway = await start(config(upstream, second, wildcard("*", "one") + wildcard("two/*", "two")))
    _, body = await gateway.get("/v1/models")
    assert {model["id"] for model in body["data"] if model["owned_by"] != "llmgateway"} == {"a", "two/x"}
    assert (await gateway.get("/v1/models/two/y"))[0] == 404


async def test_a_model_of_the_catalog_comes_before_a_wildcards(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    upstream.models = named("a", "b")
    exact = "  a:\n    deployments: [{provider: two, model: mine}]\n"
    gateway = await start(config(upstream, second, wildcard("*", "one") + exact))
    assert (await gateway.get("/v1/models/a"))[1]["owned_by"] == "two"
    assert [name for name in await listed(gateway) if name != "auto"] == ["a", "b"]


async def test_names_around_the_star_are_taken_off_and_put_on(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    upstream.models = named("meta/llama:free", "meta/llama", "other/llama:free", "meta/:free")
    gateway = await start(config(upstream, second, wildcard("free-*", "one", "meta/*:free")))
    assert await listed(gateway) == ["free-llama"]


@dataclass
class Silent(Upstream):
    """It takes questions for its models, and answers none."""

    asked: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def _models(self, request: web.Request) -> web.Response:
        self.asked.put_nowait(None)
        await stall(request)
        raise AssertionError

    async def was_asked(self, times: int) -> None:
        async with asyncio.timeout(5):
            for _ in range(times):
                await self.asked.get()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    upstream = Silent()
    async with AsyncExitStack() as stack:
        server = TestServer(upstream.app())
        await server.start_server(access_log=None)
        stack.push_async_callback(server.close)
        upstream.url = str(server.make_url("/api/v1/"))
        yield upstream


async def test_providers_are_asked_at_the_same_time(silent: Silent, start: Start) -> None:
    """So that several that hang take no longer than one."""
    gateway = await start(config(silent, silent, wildcard("one/*", "one") + wildcard("two/*", "two")))
    await silent.was_asked(2)  # whether the providers are there
    asking = asyncio.create_task(gateway.get("/v1/models"))
    await silent.was_asked(2)
    asking.cancel()


async def test_a_model_that_has_a_name_is_told_without_asking_anybody(
    silent: Silent, start: Start, upstream: Upstream
) -> None:
    exact = "  fast:\n    deployments: [{provider: one, model: a}]\n"
    gateway = await start(config(upstream, silent, exact + wildcard("two/*", "two")) + "aliases: {quick: fast}\n")
    async with asyncio.timeout(5):
        assert (await gateway.get("/v1/models/fast"))[1]["id"] == "fast"
        assert (await gateway.get("/v1/models/quick"))[1]["alias_of"] == "fast"


async def test_the_list_follows_the_file(start: Start, upstream: Upstream, second: Upstream, tmp_path: Path) -> None:
    """Also to where a provider has moved."""
    upstream.models, second.models = named("a"), named("b")
    gateway = await start(config(upstream, second, wildcard("one/*", "one")))
    assert await listed(gateway) == ["one/a"]
    (tmp_path / "gateway.yaml").write_text(config(second, second, wildcard("one/*", "one")))
    async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN) as response:
        assert response.status == 200
    assert await listed(gateway) == ["one/b"]
