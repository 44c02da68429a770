"""A gateway over two upstreams, with a configuration file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from benchmarks.load import model_of, write_config
from tests.harness import ADMINISTERED, TestGateway, Upstream, gateway_over, says

Start = Callable[..., Awaitable[TestGateway]]


@pytest.fixture
async def second() -> AsyncIterator[Upstream]:
    """Another upstream that answers."""
    second = Upstream([says()])
    server = TestServer(second.app())
    await server.start_server(access_log=None)
    second.url = str(server.make_url("/api/v1/"))
    yield second
    await server.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


@pytest.fixture
def write(config: Path, upstream: Upstream, second: Upstream) -> Callable[..., None]:
    """Writes a file with the providers `one` and `two`; sections are given as `write_config` takes them."""

    def writing(**sections: Any) -> None:
        models = sections.pop("models", {"fast": model_of("one"), "large": model_of("two")})
        write_config(config, {"one": upstream.url, "two": second.url}, models=models, **sections)

    return writing


@pytest.fixture
async def start(config: Path, write: Callable[..., None], sqlite_url: str) -> AsyncIterator[Start]:
    """Starts a gateway with the file; writes one if there is none."""
    async with AsyncExitStack() as stack:

        async def starting(timing: Any = None, rules: Any = None, **settings: Any) -> TestGateway:
            if not config.exists():
                write()
            quiet = {"prices_sync_seconds": 0, "reconcile_seconds": 0}
            chosen = {"llmgateway_config": str(config), **quiet, **ADMINISTERED, **settings}
            database_url = chosen.pop("database_url", sqlite_url)
            return await stack.enter_async_context(
                gateway_over("http://127.0.0.1:9/", database_url, timing, rules, **chosen)
            )

        yield starting
