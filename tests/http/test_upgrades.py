"""A wish for another protocol is not heeded, and what comes behind it is served whole or not at all."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.gateway.raw_http import RawConnection, chunked, connected, request_bytes
from tests.harness import HELLO
from tests.http.conftest import HANG_SECONDS, Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps(HELLO).encode()
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
POST = request_bytes(BODY, *UPGRADE)
GET = request_bytes(None, *UPGRADE, method="GET", path="/health/live")
NEXT = request_bytes(method="GET", path="/health/ready")
HEAD = POST[: -len(BODY)]
CHUNKED = request_bytes(None, *UPGRADE, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
NOWHERE = request_bytes(BODY, *UPGRADE, path="/nowhere")


async def _send(connection: RawConnection, parts: tuple[bytes, ...]) -> None:
    """Each is a read of its own at the other end."""
    for part in parts:
        await connection.send(part)
        await asyncio.sleep(0.05)


NOTHING_BEHIND = {
    "at once": (POST,),
    "the body after the head": (HEAD, BODY),
    "the body in pieces": (HEAD + BODY[:1], BODY[1:-1], BODY[-1:]),
    "the head in pieces": (HEAD[:50], HEAD[50:-1] + HEAD[-1:], BODY),
    "without a body": (GET,),
    "of a path that is not there": (NOWHERE,),
}


@pytest.mark.parametrize("parts", NOTHING_BEHIND.values(), ids=NOTHING_BEHIND)
async def test_the_connection_is_kept_if_nothing_came_behind(served: Served, parts: tuple[bytes, ...]) -> None:
    """Java's own client asks for it with each request, and sends heads and bodies one after the other."""
    async with connected(served.gateway.url) as connection:
        for _ in range(3):
            await _send(connection, parts)
            answer = await connection.answer()
            assert (answer.status, answer.closes) == (404 if parts == (NOWHERE,) else 200, False)


BEHIND = {
    "one without a body": (GET + NEXT,),
    "one with a body": (POST + NEXT,),
    "the body after the head": (HEAD, BODY + NEXT),
    "the body in pieces": (HEAD + BODY[:1], BODY[1:] + NEXT),
    "in chunks": (CHUNKED + chunked(BODY) + NEXT,),
    "in chunks after the head": (CHUNKED, chunked(BODY) + NEXT),
    "of a path that is not there": (NOWHERE + NEXT,),
    "the head's end in pieces": (GET[:-1], GET[-1:] + NEXT),
    "the head's end in pieces, with a body behind": (HEAD[:-1], HEAD[-1:] + BODY + NEXT),
    "a part of a head": (GET + NEXT[:-20], NEXT[-20:]),
    "what would be a request of its own": (GET + NEXT[:-2] + b"X-Part: ", NEXT),
    "others of its kind": (GET * 3,),
}


@pytest.mark.parametrize("parts", BEHIND.values(), ids=BEHIND)
async def test_what_came_behind_is_not_served_and_the_answer_says_so(served: Served, parts: tuple[bytes, ...]) -> None:
    async with connected(served.gateway.url) as connection:
        await _send(connection, parts)
        answer = await connection.answer()
        assert answer.status in (200, 404)
        assert answer.closes
        await _nothing_more(connection)
    await served.is_well()


async def test_what_came_before_is_answered_in_order(served: Served) -> None:
    async with connected(served.gateway.url) as connection:
        await connection.send(NEXT * 3 + POST + NEXT)
        answers = [await connection.answer() for _ in range(4)]
        assert [answer.closes for answer in answers] == [False, False, False, True]
        await _nothing_more(connection)


async def test_a_body_that_nobody_waits_for_hides_nothing_behind_it(served: Served) -> None:
    """The answer comes before the body, so it cannot say that the connection ends."""
    head = request_bytes(None, *UPGRADE, b"Content-Length: 1000", method="GET", path="/health/live")
    async with connected(served.gateway.url) as connection:
        await connection.send(head)
        assert (await connection.answer()).status == 200
        await connection.send(b"a" * 1000 + NEXT[:-2] + b"X-Part: ")
        await _nothing_more(connection)
    await served.is_well()


async def test_a_body_that_is_more_than_may_wait_hides_nothing_behind_it(served: Served) -> None:
    """aiohttp's parser stops where it is too much, and goes on later with what it has got."""
    request = request_bytes(b"a" * 4_000_000, *UPGRADE, method="GET", path="/health/live")
    async with connected(served.gateway.url) as connection:
        await connection.send(request + NEXT)
        assert (await connection.answer()).status == 200
        await _nothing_more(connection)
    await served.is_well()


async def _nothing_more(connection: RawConnection) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        assert await connection.reader.read() == b""
