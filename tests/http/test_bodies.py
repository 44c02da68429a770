"""Sizes, what comes behind a body that nobody reads, and expectations."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path

import pytest

from tests.gateway.raw_http import RawConnection, chunked, connected, openai_error, request_bytes
from tests.harness import HELLO
from tests.http.conftest import HANG_SECONDS, Served, check_refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps(HELLO).encode()
JSON = b"Content-Type: application/json"
CHUNKED = request_bytes(None, JSON, b"Transfer-Encoding: chunked")
SMUGGLED = request_bytes(method="GET", path="/health/live")
MIB = 1024 * 1024


def resident_bytes() -> int:
    """Of this process, in which the gateway and the client both live."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def _send_all(connection: RawConnection, piece: bytes, times: int) -> None:
    try:
        for _ in range(times):
            await connection.send(piece)
    except ConnectionError:
        return


async def test_ten_gibibytes_that_are_announced_are_not_waited_for(served: Served) -> None:
    for more in (b"", b"{" * 1000):
        async with connected(served.gateway.url) as connection:
            await connection.send(request_bytes(None, JSON, b"Content-Length: 10737418240") + more)
            answer = await connection.answer()
            check_refusal(answer, 413)
            assert answer.closes


async def test_a_quarter_of_a_gibibyte_in_chunks_is_refused_early_and_takes_no_memory(served: Served) -> None:
    chunk = b"40000\r\n" + b" " * 0x40000 + b"\r\n"
    before = resident_bytes()
    async with connected(served.gateway.url) as connection:
        await connection.send(CHUNKED)
        sending = asyncio.create_task(_send_all(connection, chunk, 1024))
        answer = await connection.answer()
        check_refusal(answer, 413)
        assert answer.closes
        async with asyncio.timeout(60):
            await sending
    assert resident_bytes() - before < 64 * MIB
    await served.is_well()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_not_unpacked(served: Served, encoding: str) -> None:
    bomb = (gzip.compress if encoding == "gzip" else zlib.compress)(b" " * 32 * MIB)
    before = resident_bytes()
    async with connected(served.gateway.url) as connection:
        await connection.send(request_bytes(bomb, f"Content-Encoding: {encoding}".encode(), b"Connection: close"))
        check_refusal(await connection.answer(), 415)
    assert resident_bytes() - before < 16 * MIB


OVERHEAD = {
    "an endless extension": b"2;" + b"a" * 1_000_000,
    "a long extension for each byte": (b"1;" + b"a" * 1000 + b"\r\n \r\n") * 200,
    "leading zeros": b"0" * 1_000_000 + b"2\r\n{}\r\n0\r\n\r\n",
    "an endless trailer": b"2\r\n{}\r\n0\r\nX-Trailer: " + b"a" * 1_000_000,
    "endless trailers": b"2\r\n{}\r\n0\r\n" + b"X-Trailer: a\r\n" * 100_000,
}


@pytest.mark.parametrize("body", OVERHEAD.values(), ids=OVERHEAD)
async def test_chunks_that_are_mostly_frame_are_refused(served: Served, body: bytes) -> None:
    """In two parts, since aiohttp's parser gives no account of what it has skipped within one read."""
    async with connected(served.gateway.url) as connection:
        await connection.send(CHUNKED + b"1\r\n")
        sending = asyncio.create_task(_send_all(connection, b" \r\n" + body, 1))
        answer = await connection.answer()
        check_refusal(answer, 400, 431)
        await sending
    await served.is_well()


async def test_small_chunks_and_trailers_are_taken(served: Served) -> None:
    """One byte each, as some clients stream: that is legal, and so is a short extension or trailer."""
    calls = served.upstream.calls
    ended = b"0;last\r\nX-Trailer: a\r\n\r\n"
    pieces = b"".join(b"1;n=%d\r\n%c\r\n" % (number, byte) for number, byte in enumerate(BODY + b" " * 3000))
    async with connected(served.gateway.url) as connection:
        for _ in range(2):
            await connection.send(CHUNKED)
            await asyncio.sleep(0.01)
            await connection.send(pieces + ended)
            answer = await connection.answer()
            assert (answer.status, answer.closes) == (200, False)
    assert served.upstream.bodies[calls:] == [BODY + b" " * 3000] * 2


UNREAD = {
    "of known length": request_bytes(SMUGGLED, method="GET", path="/health/live"),
    "in chunks": request_bytes(None, b"Transfer-Encoding: chunked", method="GET", path="/health/live")
    + chunked(SMUGGLED),
    "of a path that is not there": request_bytes(SMUGGLED, path="/nowhere"),
    "with a method that is not there": request_bytes(SMUGGLED, method="DELETE"),
    "of another type": request_bytes(SMUGGLED, content_type=b"text/plain"),
    "that is compressed": request_bytes(SMUGGLED, b"Content-Encoding: br"),
}


@pytest.mark.parametrize("request_", UNREAD.values(), ids=UNREAD)
@pytest.mark.parametrize("split", [False, True], ids=["at once", "in pieces"])
async def test_a_body_that_nobody_reads_is_never_a_request(served: Served, request_: bytes, split: bool) -> None:
    """Its bytes are a request in themselves; between it and the next good one nothing may be answered."""
    async with connected(served.gateway.url) as connection:
        if split:
            await connection.send(request_[:-10])
            await asyncio.sleep(0.02)
            await connection.send(request_[-10:] + request_bytes(method="GET", path="/health/ready"))
        else:
            await connection.send(request_ + request_bytes(method="GET", path="/health/ready"))
        first = await connection.answer()
        assert first.status in (200, 400, 404, 405, 415)
        if not first.closes:
            second = await connection.answer()
            assert second.body == (await _answer_to(served, "/health/ready"))
        connection.writer.write_eof()
        async with asyncio.timeout(HANG_SECONDS):
            assert await connection.reader.read() == b""


async def _answer_to(served: Served, path: str) -> bytes:
    async with connected(served.gateway.url) as connection:
        await connection.send(request_bytes(method="GET", path=path))
        return (await connection.answer()).body


EXPECTATIONS = {
    "known": (b"Expect: 100-continue", 100),
    "in capitals": (b"Expect: 100-CONTINUE", 100),
    "unknown": (b"Expect: 200-ok", 417),
    "two": (b"Expect: 100-continue, gzip", 417),
    "too much": (b"Expect: 100-continue\r\nContent-Length: 10737418240", 413),
}


@pytest.mark.parametrize(("line", "status"), EXPECTATIONS.values(), ids=EXPECTATIONS)
async def test_expectations(served: Served, line: bytes, status: int) -> None:
    length = b"" if b"Length" in line else b"Content-Length: %d\r\n" % len(BODY)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + JSON + b"\r\n" + length + line + b"\r\n\r\n"
    async with connected(served.gateway.url) as connection:
        await connection.send(head)
        answer = await connection.answer()
        assert answer.status == status
        if status == 100:
            await connection.send(BODY)
            assert (await connection.answer()).status == 200
        else:
            openai_error(answer.body)
            assert answer.closes


async def test_an_upgrade_to_http_2_is_declined_by_not_heeding_it(served: Served) -> None:
    """Java's own client asks for it with every first request."""
    lines = (
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    )
    async with connected(served.gateway.url) as connection:
        for _ in range(2):
            await connection.send(request_bytes(BODY, *lines))
            assert (await connection.answer()).status == 200


@pytest.mark.parametrize("expectation", [b"100-continue", b"200-ok"])
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/health/live"])
async def test_expectations_in_http_1_0_are_ignored(served: Served, path: bytes, expectation: bytes) -> None:
    """Its clients know no interim answers."""
    lines = (JSON, b"Host: a", b"Content-Length: %d" % len(BODY), b"Expect: " + expectation, b"", BODY)
    method = b"POST " if path.startswith(b"/v1") else b"GET "
    async with connected(served.gateway.url) as connection:
        await connection.send(b"\r\n".join((method + path + b" HTTP/1.0", *lines)))
        assert (await connection.answer()).status == 200


PATHS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/route"),
    ("GET", "/v1/models"),
    ("GET", "/health/live"),
    ("GET", "/docs"),
    ("GET", "/metrics"),
    ("POST", "/admin/keys"),
    ("GET", "/nowhere"),
    ("DELETE", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "lines", [b"Expect: <b>", b"Expect: 100-continue\r\nExpect: <b>", b"Expect: <b>, 100-continue"]
)
async def test_unknown_expectations_are_refused_in_one_form(
    served: Served, method: str, path: str, lines: bytes
) -> None:
    """Whatever is at the path; the client's words are not repeated, and what it sends all the same is no request."""
    answer = await served.last_answer(request_bytes(SMUGGLED, lines, method=method, path=path))
    assert answer is not None
    check_refusal(answer, 417)
    assert openai_error(answer.body)["code"] == "unsupported_expectation"
    assert "<b>" not in repr(answer)


async def test_requests_one_behind_the_other_are_answered_in_order(served: Served) -> None:
    paths = ["/health/live", "/nowhere", "/health/ready"] * 20
    async with connected(served.gateway.url) as connection:
        await connection.send(b"".join(request_bytes(method="GET", path=path) for path in paths))
        got = [(await connection.answer()).status for _ in paths]
    assert got == [200, 404, 200] * 20


async def test_a_client_that_leaves_after_any_byte_harms_nobody(served: Served) -> None:
    whole = request_bytes(BODY, b"X-Title: a")
    for end in range(0, len(whole), 3):
        async with connected(served.gateway.url) as connection:
            await connection.send(whole[:end])
            if end % 2:
                assert connection.writer.transport is not None
                connection.writer.transport.abort()
    await served.is_well()
