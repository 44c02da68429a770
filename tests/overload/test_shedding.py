"""Requests that are turned away between parser and handler."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvloop
from yarl import URL

from proxy.application.load import Load, Refusal
from proxy.server.protocol import Timeouts
from tests.gateway.raw_http import RawAnswer, RawConnection, chunked, connected, openai_error, request_bytes
from tests.overload.conftest import load_of, shedding, until

FULL = 10


def full() -> Load:
    load = load_of(most=FULL)
    load.in_flight = FULL
    return load


def check(answer: RawAnswer) -> None:
    assert answer.status == 503
    error = openai_error(answer.body)
    assert (error["type"], error["code"]) == ("server_error", "gateway_overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])
    assert answer.headers["content-type"].startswith("application/json")


async def test_a_refusal_is_openais_error_with_a_time_to_come_back_and_keeps_the_connection() -> None:
    load = full()
    async with shedding(load) as url, connected(url) as connection:
        await connection.send(request_bytes(b"{}"))
        first = await connection.answer()
        await connection.send(request_bytes(b"{}"))
        second = await connection.answer()
        check(first)
        check(second)
        assert not first.closes
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        load.in_flight = 0
        await connection.send(request_bytes(b"[1]"))
        assert (await connection.answer()).body == b'{"read": 3, "path": "/v1/chat/completions"}'
    assert load.refused[Refusal.IN_FLIGHT] == 2


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics", "/admin/keys"])
async def test_what_tells_of_the_gateway_is_never_refused(path: str) -> None:
    async with shedding(full()) as url, connected(url) as connection:
        await connection.send(request_bytes(method="GET", path=path))
        assert (await connection.answer()).status == 200


async def test_everything_else_is() -> None:
    async with shedding(full()) as url, connected(url) as connection:
        for path in ("/v1/models", "/", "/docs", "/v1/health"):
            await connection.send(request_bytes(method="GET", path=path))
            check(await connection.answer())


async def test_a_request_of_which_some_is_yet_to_come_is_answered_at_once_and_its_rest_never_taken_for_another() -> (
    None
):
    load = full()
    async with shedding(load) as url, connected(url) as connection:
        whole = request_bytes(b"x" * 5000)
        await connection.send(whole[:1000])
        answer = await connection.answer()
        check(answer)
        assert answer.closes
        load.in_flight = 0
        await connection.send(whole[1000:] + request_bytes(b"{}"))
        assert await connection.is_closed()


async def test_a_chunked_body_is_no_way_around() -> None:
    async with shedding(full()) as url, connected(url) as connection:
        await connection.send(request_bytes(None, b"Transfer-Encoding: chunked") + b"4\r\nabcd\r\n")
        answer = await connection.answer()
        check(answer)
        assert answer.closes


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    load = full()
    async with shedding(load) as url, connected(url) as connection:
        health = request_bytes(method="GET", path="/health")
        await connection.send(request_bytes(b"{}") + health + request_bytes(b"{}") + health)
        check(await connection.answer())
        assert (await connection.answer()).status == 200
        # the third waited behind one that was served, so it was let in by then and is the handler's to refuse
        assert (await connection.answer()).status == 200
        assert (await connection.answer()).status == 200


async def test_a_client_that_wants_the_connection_closed_is_obeyed() -> None:
    async with shedding(full()) as url, connected(url) as connection:
        await connection.send(request_bytes(b"{}", b"Connection: close"))
        answer = await connection.answer()
        check(answer)
        assert answer.closes
        assert await connection.is_closed()


@pytest.mark.parametrize(
    ("like", "other"),
    [(b"X-Anything: at all", b"Connection: close"), (b"Connection: keep-alive", b"Connection:     close")],
    ids=["another header", "another value"],
)
async def test_a_request_that_is_as_long_as_the_last_may_still_be_another(like: bytes, other: bytes) -> None:
    plain, closing = request_bytes(b"{}", like), request_bytes(b"{}", other.ljust(len(like)))
    assert len(plain) == len(closing)
    async with shedding(full()) as url, connected(url) as connection:
        for sent, closes in ((plain, False), (plain, False), (closing, True)):
            await connection.send(sent)
            answer = await connection.answer()
            check(answer)
            assert answer.closes is closes


async def test_behind_a_refused_head_nothing_more_is_answered_since_a_client_expects_no_body() -> None:
    async with shedding(full()) as url, connected(url) as connection:
        await connection.send(request_bytes(method="HEAD", path="/v1/models"))
        answer = await connection.answer()
        check(answer)
        assert answer.closes
        assert await connection.is_closed()


async def test_a_bad_request_is_the_parsers_to_refuse() -> None:
    async with shedding(full()) as url, connected(url) as connection:
        await connection.send(b"NONSENSE\r\n\r\n")
        assert (await connection.answer()).status == 400


async def test_keys_of_low_priority_are_refused_before_the_others() -> None:
    load = load_of(most=10)
    load.in_flight = 8
    async with shedding(load) as url, connected(url) as connection:
        for key, status in ((b"low", 503), (b"high", 200), (b"unknown", 200)):
            await connection.send(request_bytes(b"{}", b"Authorization: Bearer " + key))
            assert (await connection.answer()).status == status, key


async def test_who_can_be_served_soon_waits_and_is_served() -> None:
    """64 clients who ask again at once, and half a millisecond of work for each of their requests."""
    load = load_of(most=1000, most_queued=500, most_connections=1000)
    async with shedding(load, work_seconds=0.0005) as url, asyncio.TaskGroup() as group:
        answers = [group.create_task(_ask_again(url, 5)) for _ in range(64)]
    assert [answer.result() for answer in answers] == [[200] * 5] * 64
    assert not load.refused


async def _ask_again(url: URL, times: int) -> list[int]:
    async with connected(url) as connection:
        statuses = []
        for _ in range(times):
            await connection.send(request_bytes(b"{}"))
            statuses.append((await connection.answer()).status)
        return statuses


def waiting_long() -> Load:
    load = load_of(most=FULL, patience_seconds=30.0)
    load.in_flight = FULL
    return load


async def test_who_waits_is_served_when_there_is_a_place() -> None:
    load = waiting_long()
    async with shedding(load) as url, connected(url) as one, connected(url) as other:
        await one.send(request_bytes(b"{}"))
        await other.send(request_bytes(method="GET", path="/v1/models"))
        await asyncio.sleep(0.05)
        load.in_flight = 0
        assert (await one.answer()).body == b'{"read": 2, "path": "/v1/chat/completions"}'
        assert (await other.answer()).body == b'{"read": 0, "path": "/v1/models"}'
        await one.send(request_bytes(b"[1]"))
        assert (await one.answer()).body == b'{"read": 3, "path": "/v1/chat/completions"}'
    assert not load.refused


@pytest.mark.parametrize("cut", [20, 1000, 4990])
async def test_the_rest_of_a_request_may_come_while_it_waits(cut: int) -> None:
    load = waiting_long()
    async with shedding(load) as url, connected(url) as connection:
        whole = request_bytes(b"x" * 5000)
        await connection.send(whole[:cut])
        await asyncio.sleep(0.02)
        await connection.send(whole[cut:])
        await asyncio.sleep(0.02)
        load.in_flight = 0
        assert (await connection.answer()).body == b'{"read": 5000, "path": "/v1/chat/completions"}'


async def test_what_comes_behind_a_request_that_waits_is_served_after_it() -> None:
    load = waiting_long()
    async with shedding(load) as url, connected(url) as connection:
        await connection.send(request_bytes(b"{}"))
        await asyncio.sleep(0.02)
        await connection.send(request_bytes(b"[1]")[:30])
        await asyncio.sleep(0.02)
        await connection.send(request_bytes(b"[1]")[30:] + request_bytes(method="GET", path="/health"))
        await asyncio.sleep(0.02)
        load.in_flight = 0
        bodies = [(await connection.answer()).body for _ in range(3)]
    assert [json.loads(body)["read"] for body in bodies] == [2, 3, 0]


async def test_what_comes_behind_a_request_that_is_refused_is_looked_at() -> None:
    load = full()
    async with shedding(load) as url, connected(url) as connection:
        await connection.send(request_bytes(b"{}"))
        await asyncio.sleep(0.01)
        await connection.send(request_bytes(b"{}") + request_bytes(method="GET", path="/health"))
        check(await connection.answer())
        check(await connection.answer())
        assert (await connection.answer()).status == 200
    assert load.refused == {Refusal.IN_FLIGHT: 2}


CHUNKED = request_bytes(None, b"Transfer-Encoding: chunked") + chunked(b"{}")
BEHIND_A_BODY = b"late!" + request_bytes(b"[1]", path="/first") + request_bytes(b"[22]", path="/second")


@asynccontextmanager
async def owing_a_body(url: URL) -> AsyncIterator[RawConnection]:
    """A connection that has its answer, while the server still throws away the request's five bytes of body."""
    async with connected(url) as connection:
        await connection.send(request_bytes(None, b"Content-Length: 5", path="/health/unread"))
        assert (await connection.answer()).status == 200
        yield connection


async def test_what_comes_with_the_rest_of_a_body_that_nobody_wanted_is_refused_in_its_order() -> None:
    load = full()
    async with shedding(load) as url, owing_a_body(url) as connection:
        await connection.send(BEHIND_A_BODY)
        check(await connection.answer())
        check(await connection.answer())
        load.in_flight = 0
        await connection.send(request_bytes(b"{}"))
        assert (await connection.answer()).status == 200
    assert load.refused == {Refusal.IN_FLIGHT: 2}


async def test_what_comes_with_the_rest_of_a_body_that_nobody_wanted_is_served_when_there_is_a_place() -> None:
    load = waiting_long()
    async with shedding(load) as url, owing_a_body(url) as connection:
        await connection.send(BEHIND_A_BODY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.reader.read(1), 0.1)
        load.in_flight = 0
        assert [json.loads((await connection.answer()).body)["path"] for _ in range(2)] == ["/first", "/second"]
    assert not load.refused


async def test_what_comes_with_the_rest_of_a_body_that_nobody_wanted_is_told_when_the_server_ends() -> None:
    load = waiting_long()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(shedding(load))
        async with owing_a_body(url) as connection:
            await connection.send(BEHIND_A_BODY)
            await asyncio.sleep(0.05)
            await stack.aclose()
            check(answer := await connection.answer())
            assert answer.closes
            assert await connection.is_closed()
    assert load.refused == {Refusal.LATE: 1}


async def _sent_before_it_is_accepted(data: bytes, count: int) -> list[RawAnswer]:
    """The answers of a full server to so many requests on a connection that is as new as can be."""
    async with shedding(full()) as url:
        sock = socket.create_connection((url.host, url.port))
        sock.sendall(data)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        answers = [await RawConnection(reader, writer).answer() for _ in range(count)]
        writer.close()
        return answers


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_that_comes_with_its_connection_is_no_way_around(factory: object) -> None:
    """By uvloop it is read before the connection's task has begun."""
    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]
        answers = runner.run(_sent_before_it_is_accepted(CHUNKED + CHUNKED, 2))
    for answer in answers:
        check(answer)


async def test_a_connection_is_not_idle_while_its_request_waits() -> None:
    """Whether the request waits unparsed or not."""
    load = load_of(most=FULL, patience_seconds=1.5)
    load.in_flight = FULL
    async with shedding(load, timeouts=Timeouts(keepalive_seconds=3.0)) as url, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(url)) for _ in range(2)]
        await asyncio.sleep(2.0)
        for connection, sent in zip(connections, (request_bytes(b"{}"), CHUNKED), strict=True):
            await connection.send(sent)
        for connection in connections:
            check(await connection.answer())


async def test_who_hangs_up_while_he_waits_is_neither_served_nor_refused() -> None:
    load = waiting_long()
    async with shedding(load) as url:
        async with connected(url) as connection:
            await connection.send(request_bytes(b"{}"))
            await until(lambda: load.connections == 1)
            await asyncio.sleep(0.02)
        await until(lambda: load.connections == 0)
        load.in_flight = 0
        assert (await _one(url)).body == b'{"read": 2, "path": "/v1/chat/completions"}'
    assert not load.refused


async def test_who_waits_while_the_server_ends_is_told() -> None:
    load = waiting_long()
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(shedding(load))
        async with connected(url) as whole, connected(url) as begun:
            await whole.send(request_bytes(b"{}"))
            await begun.send(request_bytes(b"x" * 5000)[:4000])
            await until(lambda: load.connections == 2)
            await asyncio.sleep(0.02)
            await stack.aclose()
            for connection in (whole, begun):
                answer = await connection.answer()
                check(answer)
                assert answer.closes
    assert load.refused == {Refusal.LATE: 2}


async def test_of_a_request_without_a_place_to_wait_nothing_is_kept() -> None:
    load = load_of(most=FULL, most_queued=1)
    load.in_flight = FULL
    async with shedding(load) as url, connected(url) as first, connected(url) as second, connected(url) as third:
        for connection in (first, second, third):
            await connection.send(request_bytes(b"{}"))
            await asyncio.sleep(0.005)
        await third.send(request_bytes(b"{}"))  # what is behind it cannot be told apart any more
        for connection in (first, second, third):
            answer = await connection.answer()
            check(answer)
            assert answer.closes is (connection is third)
        assert await third.is_closed()
    assert load.refused == {Refusal.IN_FLIGHT: 1, Refusal.QUEUED: 2}


async def test_of_long_heads_nothing_is_kept_either() -> None:
    """What a connection remembers of its last request, strangers could make it hold for as long as it is open."""
    clients, head_bytes = 20, 60_000
    sent = request_bytes(b"{}", *(b"X-%d: %s" % (number, b"a" * (head_bytes // 10)) for number in range(10)))
    async with shedding(load := load_of(FULL, clients, clients)) as url, AsyncExitStack() as stack:
        load.in_flight = FULL
        connections = [await stack.enter_async_context(connected(url)) for _ in range(clients)]
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for connection in connections:
            await connection.send(sent)
            check(await connection.answer())
        held_bytes, _ = tracemalloc.get_traced_memory()
    assert held_bytes < clients * head_bytes / 2


async def _one(url: URL) -> RawAnswer:
    async with connected(url) as connection:
        await connection.send(request_bytes(b"{}"))
        return await connection.answer()


async def test_connections_that_nobody_can_be_told_of_are_counted() -> None:
    load = load_of(most_connections=1)
    async with shedding(load) as url, AsyncExitStack() as stack:
        for number in range(1, 52):
            await stack.enter_async_context(connected(url))
            await until(lambda: load.connections == number)  # noqa: B023  # awaited at once
        async with connected(url) as another:
            assert await another.is_closed()
        await until(lambda: load.connections == 51)
    assert load.refused[Refusal.CONNECTIONS] == 1


async def test_connections_beyond_what_there_is_room_for_are_told_so_and_closed() -> None:
    load = load_of(most_connections=1)
    async with shedding(load) as url, connected(url) as first:
        await first.send(request_bytes(b"{}"))
        assert (await first.answer()).status == 200
        async with connected(url) as second:
            await until(lambda: load.connections == 2)
            await second.send(request_bytes(b"{}"))
            answer = await second.answer()
            check(answer)
            assert answer.closes
            assert await second.is_closed()
        await until(lambda: load.connections == 1)
        await first.send(request_bytes(b"{}"))
        assert (await first.answer()).status == 200
    assert load.connections == 0
