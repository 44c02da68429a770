"""A server whose load is what a test says, and a whole gateway with bounds of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from proxy.application.load import Load
from proxy.bootstrap.gateway import running_gateway
from proxy.domain.overload import Patience
from proxy.domain.rate_limits import Priority
from proxy.server.gate import Gate
from proxy.server.protocol import Timeouts
from proxy.server.shedding import SheddingRunner
from proxy.server.site import serve_on
from proxy.settings import Settings
from tests.harness import TestGateway, free_port

USUAL = Timeouts()
KEYS = {"Bearer low": Priority.LOW, "Bearer high": Priority.HIGH}


def load_of(most: int = 10, most_queued: int = 10, most_connections: int = 10, patience_seconds: float = 0.05) -> Load:
    return Load(most, most_queued, most, most_connections, Patience(patience_seconds))


@asynccontextmanager
async def shedding(load: Load, work_seconds: float = 0.0, timeouts: Timeouts = USUAL) -> AsyncIterator[URL]:
    """The address of such a runner."""
    async with shedding_runner(load, work_seconds, timeouts) as runner:
        yield url_of(runner)


def url_of(runner: SheddingRunner) -> URL:
    return URL(f"http://127.0.0.1:{runner.addresses[0][1]}/")


@asynccontextmanager
async def shedding_runner(
    load: Load, work_seconds: float = 0.0, timeouts: Timeouts = USUAL
) -> AsyncIterator[SheddingRunner]:
    """An application that answers every request after reading it and working for so long, and counts nothing.

    Only `/health/unread` is answered without being read.
    """

    async def answer(request: web.Request) -> web.Response:
        done = time.perf_counter() + work_seconds
        while time.perf_counter() < done:
            pass
        return web.json_response({"read": len(await request.read()), "path": request.path})

    async def answer_unread(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/health/unread", answer_unread)
    app.router.add_route("*", "/{path:.*}", answer)
    gate = Gate(load, lambda authorization: KEYS.get(authorization or "", Priority.NORMAL))
    runner = SheddingRunner(app, gate, timeouts, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway_with_bounds(
    upstream_url: str, database_url: str, directory: Path, has_gate: bool = True, /, **settings: Any
) -> AsyncIterator[TestGateway]:
    """A gateway in this process that listens as `llmgateway serve` does, or `has_gate` is false."""
    assert settings.keys() <= Settings.model_fields.keys()  # others would be ignored
    chosen = Settings(
        **{
            "llmgateway_data_dir": str(directory / "data"),
            "llmgateway_port": 0,
            "openrouter_base_url": upstream_url,
            "openrouter_api_key": "sk-or-provider-secret",
            "database_url": database_url,
            "shutdown_grace_seconds": 1.0,
            **settings,
        }
    )
    async with running_gateway(chosen) as gateway, AsyncExitStack() as stack:
        if has_gate:
            runner = await serve_on(gateway.app, free_port(stack), gateway, chosen, stack)
            url = URL(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        else:
            server = await stack.enter_async_context(TestServer(gateway.app))
            url = server.make_url("/")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            yield TestGateway(url, http, chosen)


async def until(is_so: Any, seconds: float = 20.0) -> None:
    """Waits for it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not is_so():
            await asyncio.sleep(0.01)
