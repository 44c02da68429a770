"""What can be wrong with a request around its body: type, length, transfer, method, path."""

from __future__ import annotations

import logging

import pytest

from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import chunked, connected, openai_error, request_bytes
from tests.gateway.refusals import GOOD, refusal
from tests.harness import TestGateway, Upstream


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What we logged of our own mistakes."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR and record.name.startswith("proxy")]


@pytest.mark.parametrize(
    "content_type",
    [
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"application/octet-stream",
        b"application/jsonl",
        b"application/json; charset=utf-16",
        b"application/json; charset=iso-8859-1",
        b"",
        b";;;",
    ],
)
async def test_a_body_that_is_not_declared_as_json(
    gateway: TestGateway, upstream: Upstream, content_type: bytes
) -> None:
    request = request_bytes(GOOD, content_type=content_type)
    message = await refusal(gateway, upstream, request, status=415, code="unsupported_media_type")
    assert "application/json" in message or "UTF-8" in message


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"Application/JSON",
        b"application/vnd.api+json",
        None,
    ],
)
async def test_a_body_that_is_declared_as_json(
    gateway: TestGateway, upstream: Upstream, content_type: bytes | None
) -> None:
    """In any spelling; one that is not declared at all is taken for it."""
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD, content_type=content_type))
        assert (await connection.answer()).status == 200
    assert upstream.bodies == [GOOD]


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"deflate", b"zstd", b"gzip, identity", b"nonsense"])
async def test_a_compressed_body(gateway: TestGateway, upstream: Upstream, encoding: bytes) -> None:
    request = request_bytes(GOOD, b"Content-Encoding: " + encoding)
    message = await refusal(gateway, upstream, request, status=415, code="unsupported_content_encoding")
    assert encoding.decode().lower() in message


async def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_sent(
    gateway: TestGateway, upstream: Upstream
) -> None:
    """The client learns it at once, and the connection ends, since nobody knows what would follow."""
    head = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 1000000000")
    message = await refusal(gateway, upstream, head, status=413, code="request_too_large")
    assert "33554432" in message
    async with connected(gateway.url) as connection:
        await connection.send(head)
        assert (await connection.answer()).closes


async def test_a_body_over_the_limit_is_refused_though_its_length_was_not_declared(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(max_body_bytes=2048)
    head = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    request = head + chunked(GOOD[:-1], *[b" " * 100] * 30, b"}")
    message = await refusal(gateway, upstream, request, status=413, code="request_too_large")
    assert "2048" in message


async def test_the_limit_itself_is_within_it(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(max_body_bytes=2048)
    longest = GOOD + b" " * (2048 - len(GOOD))
    assert (await gateway.raw_chat(longest))[0] == 200
    assert upstream.bodies == [longest]
    assert (await gateway.raw_chat(longest + b" "))[0] == 413
    async with connected(gateway.url) as connection:
        head = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
        await connection.send(head + chunked(longest))
        assert (await connection.answer()).status == 200


async def test_a_client_that_sends_too_much_before_it_listens_hears_the_refusal(start_gateway: StartGateway) -> None:
    """A connection reset instead would lose the answer."""
    gateway = await start_gateway(max_body_bytes=2048)
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(b" " * 8_000_000))
        answer = await connection.answer()
    assert answer.status == 413
    assert openai_error(answer.body)["code"] == "request_too_large"


async def test_a_body_that_does_not_arrive_in_time(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(body_timeout_seconds=0.1)
    head = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 100")
    async with connected(gateway.url) as connection:
        await connection.send(head + GOOD[:10])
        answer = await connection.answer()
        assert answer.status in (400, 408)
        assert "0.1 s" in openai_error(answer.body)["message"]
        assert answer.closes
        assert await connection.is_closed()
    assert (await gateway.row()).status is RequestStatus.REFUSED
    assert upstream.calls == 0


async def test_a_client_that_goes_away_in_the_middle_of_its_body(
    gateway: TestGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Is booked as that, and is nobody's defect."""
    head = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 100")
    async with connected(gateway.url) as connection:
        await connection.send(head + GOOD[:10])
    assert (await gateway.row()).status is RequestStatus.CLIENT_DISCONNECTED
    assert upstream.calls == 0
    assert _errors(caplog) == []


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"5\r\n{}\r\n0\r\n\r\n", b"-1\r\n\r\n"],
    ids=["no size", "wrong size", "negative size"],
)
async def test_a_broken_chunked_body(
    gateway: TestGateway, upstream: Upstream, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    head = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    async with connected(gateway.url) as connection:
        await connection.send(head + body)
        answer = await connection.answer()
        assert answer.status == 400
        assert await connection.is_closed()
    assert upstream.calls == 0
    assert _errors(caplog) == []
    assert (await gateway.chat())[0] == 200


async def test_a_chunked_body_that_breaks_after_its_head_was_read(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """The server below us does not tell, so it is a body that does not arrive in time."""
    gateway = await start_gateway(body_timeout_seconds=0.2)
    head = request_bytes(
        None, b"Content-Type: application/json", b"Transfer-Encoding: chunked", b"Expect: 100-continue"
    )
    async with connected(gateway.url) as connection:
        await connection.send(head)
        assert (await connection.answer()).status == 100
        await connection.send(b"zz\r\n")
        answer = await connection.answer()
        assert answer.status == 400
        openai_error(answer.body)
        assert await connection.is_closed()
    assert upstream.calls == 0
    assert (await gateway.row()).status is RequestStatus.REFUSED
    assert _errors(caplog) == []


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "header without colon": b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "two lengths": request_bytes(GOOD, b"Content-Length: 5"),
    "length and chunks": request_bytes(GOOD, b"Transfer-Encoding: chunked"),
    "length that is no number": request_bytes(None, b"Content-Length: many"),
    "endless header": request_bytes(GOOD, b"X-Title: " + b"a" * 100_000),
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_http(gateway: TestGateway, upstream: Upstream, request_: bytes) -> None:
    """Is refused by the server below us, and the connection ended; others are served on."""
    async with connected(gateway.url) as connection:
        await connection.send(request_)
        answer = await connection.answer()
        assert answer.status in (400, 431)
        assert await connection.is_closed()
    assert upstream.calls == 0
    assert (await gateway.chat())[0] == 200


async def test_an_expectation_that_nobody_knows(gateway: TestGateway, upstream: Upstream) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD, b"Expect: the-best"))
        answer = await connection.answer()
        assert answer.status == 417
        openai_error(answer.body)
        assert answer.headers["x-request-id"]
    assert upstream.calls == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", {"POST"}),
        ("PUT", "/v1/chat/completions", {"POST"}),
        ("DELETE", "/chat/completions", {"POST"}),
        ("OPTIONS", "/v1/chat/completions", {"POST"}),
        ("PROPFIND", "/v1/chat/completions", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("DELETE", "/v1/models/z-ai/glm-4.6", {"GET", "HEAD"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("PATCH", "/health/ready", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
async def test_another_method(
    gateway: TestGateway, upstream: Upstream, method: str, path: str, allowed: set[str]
) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD if method != "GET" else None, method=method, path=path))
        answer = await connection.answer()
        assert answer.status == 405
        assert {name.strip() for name in answer.headers["allow"].split(",")} == allowed
        error = openai_error(answer.body)
        assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")
        assert method in error["message"]
        assert all(name in error["message"] for name in allowed)
        if answer.closes:
            assert await connection.is_closed()
        else:
            await connection.send(request_bytes(GOOD))
            assert (await connection.answer()).status == 200
            assert upstream.calls == 1


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/embeddings",
        "/v1/chat/completions/",
        "/v1/chat//completions",
        "//v1/chat/completions",
        "/v1/chat/completions/x",
        "/V1/Chat/Completions",
        "/v1/chat/completions%20",
        "/v1/models/",
        "/v2/chat/completions",
        "/%00",
        "/%0d%0aSet-Cookie:%20a=b",
        "/%ff%fe",
        "/../../etc/passwd",
        "/docs/../../secret",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_path(gateway: TestGateway, upstream: Upstream, method: str, path: str) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD if method == "POST" else None, method=method, path=path))
        answer = await connection.answer()
        assert answer.status == 404, answer.body
        error = openai_error(answer.body)
        assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_url")
        assert "set-cookie" not in answer.headers
    assert upstream.calls == 0


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions?api-version=1&x", "/chat/completions", "/v1/chat/completion%73"]
)
async def test_the_path_in_other_words(gateway: TestGateway, upstream: Upstream, path: str) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD, path=path))
        assert (await connection.answer()).status == 200
    assert upstream.bodies == [GOOD]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/z-ai/glm-4.6", "/health", "/health/live", "/health/ready"])
async def test_head_is_get_without_the_body(gateway: TestGateway, path: str) -> None:
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(method="HEAD", path=path))
        answer = await connection.answer(to_head=True)
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0
        await connection.send(request_bytes(GOOD))
        assert (await connection.answer()).status == 200


@pytest.mark.parametrize(("path", "status"), [("/v1/chat/completions", 405), ("/nowhere", 404)])
async def test_head_where_there_is_no_get(gateway: TestGateway, path: str, status: int) -> None:
    """Has no body either, which would be read as the next answer."""
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(method="HEAD", path=path))
        assert (await connection.answer(to_head=True)).status == status
        await connection.send(request_bytes(GOOD))
        assert (await connection.answer()).status == 200


async def test_good_and_bad_requests_in_one_go(gateway: TestGateway, upstream: Upstream) -> None:
    """Pipelined requests are answered in order."""
    bad = request_bytes(b"{")
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD) + bad + request_bytes(GOOD) + bad)
        assert [(await connection.answer()).status for _ in range(4)] == [200, 400, 200, 400]
    assert upstream.calls == 2
