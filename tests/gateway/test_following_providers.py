"""Prices are asked for, in the background, at the providers that the configuration file names now."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp.test_utils import TestServer

from tests.harness import ADMINISTERED, AS_ADMIN, TestGateway, Upstream, gateway_over

MODEL = "of/a-provider"


def file(provider: str, kind: str, upstream: Upstream) -> str:
    return f"""
providers: {{{provider}: {{kind: {kind}, base_url: "{upstream.url}"}}}}
models: {{fast: {{deployments: [{{provider: {provider}, model: {MODEL}}}]}}}}
"""


def asks(upstream: Upstream, usd_per_token: str) -> None:
    upstream.models = [{"id": MODEL, "pricing": {"prompt": usd_per_token, "completion": "0.000001"}}]


async def price_becomes(gateway: TestGateway, usd_per_1m_tokens: str) -> None:
    async with asyncio.timeout(10):
        while True:
            async with gateway.http.get(gateway.url / "admin/prices", headers=AS_ADMIN) as response:
                prices = {each["model"]: each for each in (await response.json())["data"]}
            if MODEL in prices and prices[MODEL]["input_cost_per_1m_tokens"] == usd_per_1m_tokens:
                return
            await asyncio.sleep(0.02)


async def test_a_changed_file_changes_who_is_asked_for_prices(
    upstream: Upstream, sqlite_url: str, tmp_path: Path
) -> None:
    """A provider that was not there at the start, one that is somewhere else now, and one that has gone."""
    second = Upstream()
    asks(upstream, "0.000002")
    asks(second, "0.000003")
    path = tmp_path / "gateway.yaml"
    path.write_text(file("local", "openai", upstream))

    async def change(text: str) -> None:
        path.write_text(text)
        async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN) as response:
            assert response.status == 200

    async with (
        TestServer(second.app()) as server,
        gateway_over(
            upstream.url, sqlite_url, llmgateway_config=str(path), prices_sync_seconds=0.05, **ADMINISTERED
        ) as gateway,
    ):
        second.url = str(server.make_url("/api/v1/"))
        await change(file("router", "openrouter", upstream))
        await price_becomes(gateway, "2")
        await change(file("router", "openrouter", second))
        await price_becomes(gateway, "3")
        await change(file("another", "openrouter", upstream))
        await price_becomes(gateway, "2")
