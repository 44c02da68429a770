"""The models and health endpoints of the running gateway."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.bootstrap.gateway import running_gateway
from proxy.domain.request_log import RequestStatus
from proxy.settings import Settings
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import HELLO, FakeTime, TestGateway, Upstream, fails, gateway_over, says, stall

PRICED = ["deepseek-ai/DeepSeek-V3.1-Terminus", "moonshotai/Kimi-K2-Instruct-0905", "z-ai/glm-4.6"]
LISTED: list[dict[str, Any]] = [
    {
        "id": "z-ai/glm-4.6",
        "canonical_slug": "z-ai/glm-4.6-0930",
        "name": "GLM 4.6",
        "created": 1759235576,
        "context_length": 202752,
        "pricing": {"prompt": "0.00000040", "completion": "0.00000175", "request": "0"},
        "top_provider": {"max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["tools", "seed"],
        "of_next_year": [{"x": 18446744073709551617}],
    },
    {"id": "meta/llama-3:free"},
    {"id": "gpt-4o", "object": "model", "owned_by": "openai", "created": 1},
    {"id": "a/b/c", "created": 2},
]


@dataclass
class Catalogue(Upstream):
    """An upstream whose list of models can be anything, and whose callers are counted."""

    asked: int = 0
    hangs: bool = False
    raw: bytes | None = None

    async def _models(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await stall(request)
        if self.raw is not None:
            return web.Response(body=self.raw, content_type="application/json", status=self.models_status)
        return await super()._models(request)


@pytest.fixture
async def catalogue() -> AsyncIterator[Catalogue]:
    catalogue = Catalogue([says()], models=LISTED)
    async with TestServer(catalogue.app()) as server:
        catalogue.url = str(server.make_url("/api/v1/"))
        yield catalogue


@pytest.fixture
async def over_catalogue(catalogue: Catalogue, sqlite_url: str) -> AsyncIterator[TestGateway]:
    """A gateway over it, whose own first look at the upstream is over."""
    async with gateway_over(catalogue.url, sqlite_url) as gateway:
        await checked(gateway)
        yield gateway


async def checked(gateway: TestGateway) -> dict[str, Any]:
    """What /health says of the provider, once it was looked at."""
    async with asyncio.timeout(10):
        while True:
            _, body = await gateway.get("/health")
            provider: dict[str, Any] = body["providers"]["OpenRouter"]
            if provider["last_checked_at"] is not None:
                return provider
            await asyncio.sleep(0.01)


async def test_models_come_in_openais_shape_with_all_that_the_upstream_says(over_catalogue: TestGateway) -> None:
    status, body = await over_catalogue.get("/v1/models")
    assert status == 200
    assert body["object"] == "list"
    by_id = {model["id"]: model for model in body["data"]}
    assert list(by_id) == ["auto", *(model["id"] for model in LISTED)]
    for model in body["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int)
        assert isinstance(model["owned_by"], str)
        assert model["owned_by"]
    for model in LISTED:
        assert {**by_id[model["id"]], **model} == by_id[model["id"]]
    assert by_id["z-ai/glm-4.6"]["owned_by"] == "z-ai"
    assert by_id["gpt-4o"]["owned_by"] == "openai"


async def test_one_model_is_as_in_the_list(over_catalogue: TestGateway) -> None:
    """Whatever its name, and however that is written."""
    _, body = await over_catalogue.get("/v1/models")
    for model in body["data"]:
        assert await over_catalogue.get(f"/v1/models/{model['id']}") == (200, model)
        assert await over_catalogue.get(f"/models/{model['id']}") == (200, model)
        async with over_catalogue.http.get(f"{over_catalogue.url}v1/models/{quote(model['id'], safe='')}") as response:
            assert await response.json() == model


@pytest.mark.parametrize("name", ["no/such-model", "z-ai", "z-ai/glm-4.6/", "Z-AI/GLM-4.6", "%00", "%ff"])
async def test_an_unknown_model_is_not_found(over_catalogue: TestGateway, name: str) -> None:
    async with over_catalogue.http.get(f"{over_catalogue.url}v1/models/{name}") as response:
        assert response.status == 404
        error = openai_error(await response.read())
    assert (error["type"], error["code"]) == ("invalid_request_error", "model_not_found")
    assert "not found" in error["message"]


async def test_the_list_is_kept_for_a_while(over_catalogue: TestGateway, catalogue: Catalogue) -> None:
    """Many that ask at once, and again, cost the upstream one call."""
    before = catalogue.asked
    bodies = await asyncio.gather(*(over_catalogue.get("/v1/models") for _ in range(20)))
    await over_catalogue.get("/v1/models/z-ai/glm-4.6")
    assert all(body == bodies[0] for body in bodies)
    assert catalogue.asked == before + 1


async def test_the_list_is_asked_for_again_in_time(catalogue: Catalogue, sqlite_url: str) -> None:
    async with gateway_over(catalogue.url, sqlite_url, models_cache_seconds=0.001) as gateway:
        await gateway.get("/v1/models")
        catalogue.models = [{"id": "new/model"}]
        await asyncio.sleep(0.01)
        _, body = await gateway.get("/v1/models")
    assert [model["id"] for model in body["data"]] == ["auto", "new/model"]


async def test_the_last_list_is_served_while_the_upstream_fails(catalogue: Catalogue, sqlite_url: str) -> None:
    async with gateway_over(catalogue.url, sqlite_url, models_cache_seconds=0.001) as gateway:
        _, before = await gateway.get("/v1/models")
        catalogue.models_status = 500
        await asyncio.sleep(0.01)
        assert await gateway.get("/v1/models") == (200, before)


NO_LIST = {
    "nothing": b"",
    "HTML": b"<html>",
    "another object": b"{}",
    "null": b'{"data": null}',
    "a text": b'{"data": "x"}',
    "an array": b"[]",
    "a deep array": b"[" * 200_000,
    "texts for models": b'{"data": ["a", null, 5]}',
}


@pytest.mark.parametrize("raw", NO_LIST.values(), ids=NO_LIST)
async def test_what_is_no_list_of_models_is_as_good_as_none(
    over_catalogue: TestGateway, catalogue: Catalogue, raw: bytes
) -> None:
    """The price table is served instead."""
    catalogue.raw = raw
    status, body = await over_catalogue.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in body["data"]] == ["auto", *PRICED]


@pytest.mark.parametrize("model", [{}, {"id": None}, {"id": 5}, {"id": ""}, {"id": " "}, "text", None, 5, []], ids=str)
async def test_one_odd_entry_does_not_spoil_the_list(
    over_catalogue: TestGateway, catalogue: Catalogue, model: Any
) -> None:
    catalogue.models = [{"id": "good/one"}, model, {"id": "good/two"}]
    status, body = await over_catalogue.get("/v1/models")
    assert status == 200
    assert {"good/one", "good/two"} <= {model["id"] for model in body["data"]}


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_without_an_upstream_the_price_table_is_served(
    over_catalogue: TestGateway, catalogue: Catalogue, status: int
) -> None:
    catalogue.models_status = status
    got, body = await over_catalogue.get("/v1/models")
    assert got == 200
    assert [model["id"] for model in body["data"]] == ["auto", *PRICED]
    for model in body["data"][1:]:
        assert (model["object"], model["owned_by"]) == ("model", model["id"].partition("/")[0])
        assert isinstance(model["created"], int)
    assert body["data"][-1]["context_length"] == 128_000
    assert body["data"][-1]["pricing"] == {"prompt": "0.0000000001", "completion": "0.0000000002"}
    assert (await over_catalogue.get("/v1/models/z-ai/glm-4.6"))[0] == 200


async def test_the_openai_sdk_lists_and_finds_models(over_catalogue: TestGateway) -> None:
    async with openai.AsyncOpenAI(base_url=str(over_catalogue.url / "v1"), api_key="any", max_retries=0) as client:
        listed = [model.id async for model in client.models.list()]
        assert listed == ["auto", *(model["id"] for model in LISTED)]
        assert (await client.models.retrieve("z-ai/glm-4.6")).owned_by == "z-ai"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("no/such-model")


async def test_a_calm_gateway_is_healthy(over_catalogue: TestGateway) -> None:
    status, body = await over_catalogue.get("/health")
    assert status == 200
    assert (body["status"], body["problems"]) == ("ok", [])
    assert body["version"]
    assert body["uptime_seconds"] >= 0
    assert body["database"]["status"] == "up"
    assert body["database"]["kind"] == "sqlite"
    assert body["ledger"]["waiting_rows"] == 0
    assert body["providers"]["OpenRouter"]["healthy"] is True
    assert body["deployments"]["OpenRouter"]["circuit_breaker"] == "closed"
    assert await over_catalogue.get("/health/live") == (200, {"status": "alive"})
    assert await over_catalogue.get("/health/ready") == (
        200,
        {
            "status": "ready",
            "can_serve": True,
            "can_book": True,
            "degraded": [],
        },
    )


async def test_looking_at_health_costs_nothing_upstream(over_catalogue: TestGateway, catalogue: Catalogue) -> None:
    before = catalogue.asked
    for path in ("/health", "/health/live", "/health/ready", "/health/accepting"):
        for _ in range(5):
            await over_catalogue.get(path)
    assert catalogue.asked == before
    assert catalogue.calls == 0


async def test_health_counts_booked_rows_and_has_none_of_its_own(over_catalogue: TestGateway) -> None:
    await over_catalogue.chat()
    await over_catalogue.rows(1)
    async with asyncio.timeout(10):
        while (await over_catalogue.get("/health"))[1]["ledger"]["booked_rows"] != 1:
            await asyncio.sleep(0.01)
    assert len(await over_catalogue.rows(1)) == 1


async def test_a_provider_that_does_not_answer_is_a_degradation(catalogue: Catalogue, sqlite_url: str) -> None:
    """Requests are still taken: they may succeed."""
    catalogue.models_status = 503
    async with gateway_over(catalogue.url, sqlite_url) as gateway:
        assert (await checked(gateway))["healthy"] is False
        _, body = await gateway.get("/health")
        assert body["status"] == "degraded"
        assert any("OpenRouter" in problem for problem in body["problems"])
        status, body = await gateway.get("/health/ready")
        assert status == 200
        assert body["degraded"]


async def test_an_open_breaker_makes_the_gateway_not_ready(start_gateway: StartGateway, upstream: Upstream) -> None:
    """Until its cool-down is over; then a probe closes it."""
    time = FakeTime()
    gateway = await start_gateway(
        time.timing(), retry_max_retries=0, circuit_breaker_failure_threshold=2, circuit_breaker_cooldown_seconds=30
    )
    upstream.answer(fails(500))
    await gateway.chat()
    assert (await gateway.get("/health/ready"))[0] == 200
    assert (await gateway.get("/health"))[1]["deployments"]["OpenRouter"]["consecutive_failures"] == 1
    await gateway.chat()
    status, body = await gateway.get("/health/ready")
    assert status == 503
    assert body["status"] == "not ready"
    assert any("circuit breaker" in reason and "OpenRouter" in reason for reason in body["reasons"])
    status, body = await gateway.get("/health/accepting")  # other gateways could not serve either
    assert (status, body["can_serve"]) == (200, False)
    status, body = await gateway.get("/health")
    assert (status, body["status"]) == (200, "unavailable")
    deployment = body["deployments"]["OpenRouter"]
    assert deployment["circuit_breaker"] == "open"
    assert 0 < deployment["retry_after_seconds"] <= 30
    assert (await gateway.get("/health/live"))[0] == 200

    upstream.answer(says())
    status, headers, raw = await gateway.raw_chat()
    assert status == 503
    assert openai_error(raw)["code"] == "provider_unavailable"
    assert 0 < int(headers["retry-after"]) <= 30
    assert upstream.calls == 0
    assert (await gateway.rows(3))[0].status is RequestStatus.REFUSED

    time.now += 31
    assert (await gateway.get("/health/ready"))[0] == 200
    assert (await gateway.chat())[0] == 200
    assert (await gateway.get("/health"))[1]["deployments"]["OpenRouter"]["circuit_breaker"] == "closed"


async def test_a_gateway_that_shuts_down_is_not_ready(upstream: Upstream, sqlite_url: str) -> None:
    """But alive, and it serves whoever is still there."""
    chosen: dict[str, Any] = {"openrouter_base_url": upstream.url, "database_url": sqlite_url}
    settings = Settings(**chosen)
    async with running_gateway(settings) as gateway, TestClient(TestServer(gateway.app)) as client:
        assert (await client.get("/health/ready")).status == 200
        gateway.stop_serving(lambda: True)  # others were to take its place, but there are none
        response = await client.get("/health/ready")
        assert response.status == 503
        assert any("shutting down" in reason for reason in (await response.json())["reasons"])
        assert (await client.get("/health/accepting")).status == 503
        assert (await (await client.get("/health")).json())["status"] == "unavailable"
        assert (await client.get("/health/live")).status == 200
        assert (await client.post("/v1/chat/completions", json=HELLO)).status == 200


async def test_a_full_ledger_makes_the_gateway_not_ready(start_gateway: StartGateway, upstream: Upstream) -> None:
    """A request whose row could not be promised is refused before money is spent; it recovers by itself."""
    gateway = await start_gateway()
    with full_disk():
        status, headers, raw = await gateway.raw_chat()
        assert status == 503
        assert openai_error(raw)["code"] == "ledger_full"
        assert int(headers["retry-after"]) > 0
        status, body = await gateway.get("/health/ready")
        assert (status, body["can_serve"]) == (503, False)
        assert any("ledger" in reason for reason in body["reasons"])
        assert (await gateway.get("/health/accepting"))[0] == 503
        assert upstream.calls == 0
    assert (await gateway.get("/health/ready"))[0] == 200
    assert (await gateway.chat())[0] == 200


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel refuses to make large files, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@asynccontextmanager
async def hanging(sqlite_url: str) -> AsyncIterator[tuple[TestGateway, Catalogue]]:
    """A gateway over an upstream that takes every call and answers none."""

    async def silent(request: web.Request) -> web.StreamResponse:
        await stall(request)
        raise AssertionError

    catalogue = Catalogue([silent], hangs=True)
    async with TestServer(catalogue.app()) as server:
        catalogue.url = str(server.make_url("/api/v1/"))
        async with gateway_over(catalogue.url, sqlite_url) as gateway:
            yield gateway, catalogue


async def test_health_does_not_wait_for_an_upstream_that_hangs(sqlite_url: str) -> None:
    async with hanging(sqlite_url) as (gateway, catalogue):
        calls = [asyncio.create_task(gateway.raw_chat()) for _ in range(20)]
        async with asyncio.timeout(10):
            while catalogue.calls < 20 or catalogue.asked == 0:
                await asyncio.sleep(0.005)
        async with asyncio.timeout(1):
            for path in ("/health", "/health/live", "/health/ready", "/health/accepting"):
                status, _ = await gateway.get(path)
                assert status == 200
        assert (await gateway.get("/health"))[1]["providers"]["OpenRouter"]["healthy"] is None
        for call in calls:
            call.cancel()


async def test_a_worker_that_gives_way_is_ready_while_others_are_there(
    upstream: Upstream, sqlite_url: str, tmp_path: Path
) -> None:
    """Whoever is told to end with all the others is not, whatever was last heard of them."""
    chosen: dict[str, Any] = {"openrouter_base_url": upstream.url, "database_url": sqlite_url}
    settings = Settings(**chosen, llmgateway_workers=2, llmgateway_data_dir=str(tmp_path))
    others = tmp_path / "workers" / str(os.getppid()) / f"{os.getppid()}.json"
    async with running_gateway(settings) as gateway, TestClient(TestServer(gateway.app)) as client:

        async def until(expected: int) -> Any:
            async with asyncio.timeout(10):
                while (response := await client.get("/health/ready")).status != expected:
                    await asyncio.sleep(0.05)
            assert (await client.get("/health/accepting")).status == expected
            return await response.json()

        all_end = True
        gateway.stop_serving(lambda: not all_end)
        await until(503)
        others.write_text('{"pid": 1, "order": 0, "gives_way": false}')
        await asyncio.sleep(1.5)  # each hears of the others once a second
        assert "shutting down" in str((await until(503))["reasons"])
        all_end = False
        assert "ending" in str((await until(200))["degraded"])
        others.write_text('{"pid": 1, "order": 0, "gives_way": true}')
        assert "shutting down" in str((await until(503))["reasons"])


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/accepting"])
async def test_health_tells_no_secret(start_gateway: StartGateway, upstream: Upstream, path: str) -> None:
    """No key, no address, no password: it needs no authentication."""
    gateway = await start_gateway(llmgateway_master_key="sk-gateway-master")
    _, body = await gateway.get(path)
    told = json.dumps(body)
    for secret in ("sk-gateway-master", "sk-or-provider-secret", upstream.url, gateway.settings.database_url):
        assert str(secret) not in told
