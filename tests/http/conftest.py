"""One gateway for all tests of a module, since none of them may leave a mark on it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer

from tests.gateway.raw_http import RawAnswer, connected, openai_error, request_bytes
from tests.harness import TestGateway, Upstream, gateway_over, says

HANG_SECONDS = 20
LIMITS: dict[str, Any] = {"max_body_bytes": 65_536}


@dataclass(frozen=True)
class Served:
    """A gateway and what stands behind it."""

    gateway: TestGateway = field(repr=False)
    upstream: Upstream = field(repr=False)  # holds all that it was asked

    async def last_answer(self, request: bytes) -> RawAnswer | None:
        """The answer after which the gateway closes the connection, without being asked to; None if it gives none."""
        answer = None
        async with asyncio.timeout(HANG_SECONDS), connected(self.gateway.url) as connection:
            try:
                await connection.send(request)
                while True:
                    answer = await connection.answer()
                    if answer.closes:
                        assert await connection.reader.read() == b"", "something comes after the last answer"
                        return answer
            except (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError):
                return answer

    async def is_well(self) -> None:
        """A good request gets its answer."""
        async with connected(self.gateway.url) as connection:
            await connection.send(request_bytes(method="GET", path="/health/live"))
            assert (await connection.answer()).status == 200


@asynccontextmanager
async def serving(database: Path, directory: Path, **settings: Any) -> AsyncIterator[Served]:
    """A gateway over an upstream that answers well."""
    shutil.copy(database, directory / "gateway.db")
    upstream = Upstream([says()])
    async with TestServer(upstream.app()) as server:
        upstream.url = str(server.make_url("/api/v1/"))
        database_url = f"sqlite:///{directory / 'gateway.db'}"
        async with gateway_over(upstream.url, database_url, **{**LIMITS, **settings}) as gateway:
            yield Served(gateway, upstream)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Serves all tests of the module."""
    async with serving(migrated_sqlite, tmp_path_factory.mktemp("http")) as served:
        yield served


def check_refusal(answer: RawAnswer, *statuses: int) -> None:
    """It is an error in OpenAI's form that tells nobody what runs here, and the last one of its connection.

    Its version is the gateway's own (RFC 9112, 2.3): clients of WebSockets take no other for an answer.
    """
    assert answer.status in statuses, answer
    assert answer.version == "HTTP/1.1"
    assert answer.headers["content-type"].startswith("application/json")
    assert openai_error(answer.body)["type"] in ("invalid_request_error", "timeout_error")
    assert answer.headers["x-request-id"]
    assert answer.headers["server"] == "llmgateway"
    assert "aiohttp" not in repr(answer)
