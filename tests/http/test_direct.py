"""Direct routes: which requests take them, and that a connection is the same connection all the while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from hashlib import sha256

import pytest
from aiohttp import web
from yarl import URL

from proxy.api.body import read_json_body
from proxy.api.direct import DIRECT
from proxy.domain.rate_limits import Priority
from proxy.server.direct import Serve
from proxy.server.gate import Gate
from proxy.server.shedding import SheddingRunner
from tests.gateway.raw_http import RawConnection, chunked, connected, request_bytes
from tests.overload.conftest import load_of

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")
HANG_SECONDS = 20


async def _application(request: web.Request) -> web.Response:
    before = SEEN.get()
    SEEN.set(request.path)
    return web.Response(text=f"application, {len(await request.read())} bytes, {before} seen")


async def _direct(request: web.Request) -> web.Response:
    return web.Response(text=f"direct, {len(await request.read())} bytes")


@asynccontextmanager
async def serving(direct: Mapping[str, Serve], application: Serve = _application) -> AsyncIterator[URL]:
    """An application that answers whatever comes, with those routes before it."""
    app = web.Application(client_max_size=2**24)
    app[DIRECT] = direct
    app.router.add_route("*", "/{path:.*}", application)
    gate = Gate(load_of(), lambda _: Priority.NORMAL)
    runner = SheddingRunner(app, gate, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield URL(f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


async def _text(connection: RawConnection, request: bytes) -> str:
    await connection.send(request)
    return (await connection.answer()).body.decode()


@pytest.mark.parametrize(
    ("request_", "way"),
    [
        (request_bytes(b"12345", path="/direct"), "direct, 5 bytes"),
        (
            request_bytes(None, b"Transfer-Encoding: chunked", path="/direct") + chunked(b"12", b"345"),
            "direct, 5 bytes",
        ),
        (request_bytes(b"", path="/direct"), "direct, 0 bytes"),
        (request_bytes(b"12345", path="/direct?a=b"), "application"),
        (request_bytes(b"12345", path="/direct/"), "application"),
        (request_bytes(b"12345", path="/%64irect"), "application"),
        (request_bytes(b"12345", path="/other"), "application"),
        (request_bytes(path="/direct", method="GET"), "application"),
        (request_bytes(b"12345", path="/direct", method="PUT"), "application"),
    ],
)
async def test_only_posts_to_the_very_path_are_direct(request_: bytes, way: str) -> None:
    async with serving({"/direct": _direct}) as url, connected(url) as connection:
        for _ in range(2):
            assert (await _text(connection, request_)).startswith(way)


async def test_an_expectation_is_for_the_application() -> None:
    async with serving({"/direct": _direct}) as url, connected(url) as connection:
        await connection.send(request_bytes(b"12345", b"Expect: 100-continue", path="/direct")[:-5])
        assert (await connection.answer()).status == 100
        assert (await _text(connection, b"12345")).startswith("application, 5 bytes")


async def test_answers_keep_the_order_of_requests_that_come_at_once() -> None:
    one, other = request_bytes(b"1", path="/direct"), request_bytes(b"22", path="/other")
    async with serving({"/direct": _direct}) as url, connected(url) as connection:
        await connection.send((one + other) * 20)
        for _ in range(20):
            assert (await connection.answer()).body == b"direct, 1 bytes"
            assert (await connection.answer()).body == b"application, 2 bytes, nothing seen"


async def test_a_body_may_come_piece_by_piece() -> None:
    async with serving({"/direct": _direct}) as url, connected(url) as connection:
        whole = request_bytes(b"x" * 1000, path="/direct")
        for _ in range(2):
            for begin in range(0, len(whole), 300):
                await connection.send(whole[begin : begin + 300])
                await asyncio.sleep(0.01)
            assert (await connection.answer()).body == b"direct, 1000 bytes"


@pytest.mark.parametrize("piece_bytes", [2**24, 300_000, 1448])
@pytest.mark.parametrize("path", ["/direct", "/other"])
async def test_a_body_as_large_as_may_be_arrives_whole_however_it_comes(path: str, piece_bytes: int) -> None:
    limit_bytes = 2_000_000
    body = bytes(range(256)) * (limit_bytes // 256)

    async def taking(request: web.Request) -> web.Response:
        return web.Response(body=sha256(await read_json_body(request, limit_bytes)).digest())

    whole = request_bytes(body, path=path)
    async with asyncio.timeout(HANG_SECONDS), serving({"/direct": taking}, taking) as url, connected(url) as connection:
        for request in (whole, request_bytes(None, b"Transfer-Encoding: chunked", path=path) + chunked(body), whole):
            for begin in range(0, len(request), piece_bytes):
                await connection.send(request[begin : begin + piece_bytes])
            assert (await connection.answer()).body == sha256(body).digest()


async def test_a_body_that_was_held_back_before_anybody_read_it_arrives_whole() -> None:
    body = bytes(range(256)) * 8000

    async def late(request: web.Request) -> web.Response:
        while not request.protocol._reading_paused:
            await asyncio.sleep(0.01)
        return web.Response(body=sha256(await read_json_body(request, len(body))).digest())

    async with asyncio.timeout(HANG_SECONDS), serving({"/direct": late}) as url, connected(url) as connection:
        await connection.send(request_bytes(body, path="/direct"))
        assert (await connection.answer()).body == sha256(body).digest()


async def test_direct_requests_share_the_connections_task_and_what_others_set_ends_with_them() -> None:
    tasks = []

    async def noting(request: web.Request) -> web.Response:
        tasks.append(asyncio.current_task())
        return web.Response(text=SEEN.get())

    async with serving({"/direct": noting}) as url, connected(url) as connection:
        for _ in range(2):
            assert await _text(connection, request_bytes(b"", path="/other")) == "application, 0 bytes, nothing seen"
            assert await _text(connection, request_bytes(b"", path="/direct")) == "nothing"
    assert tasks[0] is tasks[1]


async def test_a_body_that_nobody_reads_is_not_taken_for_the_next_request() -> None:
    async def heedless(_: web.Request) -> web.Response:
        return web.Response(text="read it yourself")

    whole = request_bytes(b"x" * 200_000, path="/direct")
    async with serving({"/direct": heedless}) as url, connected(url) as connection:
        await connection.send(whole[:70_000])
        assert (await connection.answer()).body == b"read it yourself"
        await connection.send(whole[70_000:])
        assert await _text(connection, request_bytes(b"1", path="/other")) == "application, 1 bytes, nothing seen"


async def test_a_failure_is_told_and_ends_no_more_than_the_connection() -> None:
    async def failing(_: web.Request) -> web.Response:
        raise RuntimeError

    async with serving({"/direct": failing}) as url:
        for _ in range(2):
            async with connected(url) as connection:
                await connection.send(request_bytes(b"1", path="/direct"))
                answer = await connection.answer()
                assert (answer.status, answer.closes) == (500, True)
                assert await connection.is_closed()


async def test_a_client_that_hangs_up_ends_what_is_done_for_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(_: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with serving({"/direct": endless}) as url, asyncio.timeout(HANG_SECONDS):
        async with connected(url) as connection:
            await connection.send(request_bytes(b"1", path="/direct"))
            await begun.wait()
        await ended.wait()


async def test_a_stop_waits_for_what_is_being_served() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        begun.set()
        await may_end.wait()
        return web.Response(text="in time")

    async with asyncio.timeout(HANG_SECONDS), AsyncExitStack() as clients, AsyncExitStack() as server:
        url = await server.enter_async_context(serving({"/direct": slow}))
        connection = await clients.enter_async_context(connected(url))
        await connection.send(request_bytes(b"1", path="/direct"))
        await begun.wait()
        stopping = asyncio.create_task(server.aclose())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        may_end.set()
        assert (await connection.answer()).body == b"in time"
        await stopping
