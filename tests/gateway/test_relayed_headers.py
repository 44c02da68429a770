"""Which headers pass through the running gateway: those on its lists, both ways, and no others."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from tests.gateway.raw_http import connected, request_bytes
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, chunk, ending, fails, says

FORWARDED = {
    "HTTP-Referer": "https://example.org/app?x=1",
    "X-Title": "Žluťoučký App",
    "X-OpenRouter-Title": "App",
    "X-OpenRouter-Categories": "a,b",
    "X-OpenRouter-Metadata": "enabled",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=1",
}
KEPT_BACK = {
    "Authorization": "Bearer sk-of-the-client",
    "Cookie": "session=1",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "inner",
    "X-Real-IP": "192.0.2.1",
    "Forwarded": "for=192.0.2.1",
    "Via": "1.1 inner",
    "Proxy-Authorization": "Basic eDp5",
    "Keep-Alive": "timeout=5",
    "TE": "trailers",
    "Trailer": "X-End",
    "X-Api-Key": "sk-of-the-client",
    "OpenAI-Organization": "org",
    "x-stainless-retry-count": "1",
    "X-Unknown": "x",
    "User-Agent": "OpenAI/Python 3.0",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, br",
    "Origin": "http://localhost:3000",
}


async def test_of_the_clients_headers_only_those_for_the_upstream_reach_it(
    gateway: TestGateway, upstream: Upstream
) -> None:
    async with gateway.http.post(
        gateway.url / "v1/chat/completions", json=HELLO, headers={**FORWARDED, **KEPT_BACK}
    ) as response:
        assert response.status == 200
    got = {name.lower(): value for name, value in upstream.headers[0].items()}
    assert {name: got.get(name.lower()) for name in FORWARDED} == FORWARDED
    for name, value in KEPT_BACK.items():
        assert got.get(name.lower()) != value, name
    assert got["authorization"] == "Bearer sk-or-provider-secret"
    assert got["content-type"] == "application/json"
    assert set(got) - {name.lower() for name in FORWARDED} == {
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    }


async def test_headers_that_are_for_this_connection_only_stay_on_it(gateway: TestGateway, upstream: Upstream) -> None:
    """`Connection` names them (RFC 9110, section 7.6.1), be they ones that would be sent on or not."""
    named = (b"Connection: keep-alive, X-Title, X-Hop", b"X-Title: a", b"X-Hop: b", b"X-OpenRouter-Title: c")
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(json.dumps(HELLO).encode(), *named))
        assert (await connection.answer()).status == 200
    got = {name.lower(): value for name, value in upstream.headers[0].items()}
    assert got["x-openrouter-title"] == "c"
    assert "x-hop" not in got
    assert "x-title" not in got


async def test_header_bytes_that_are_no_text_reach_the_upstream_or_are_left_out(
    gateway: TestGateway, upstream: Upstream
) -> None:
    """Some clients send Latin-1."""
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(json.dumps(HELLO).encode(), b"X-Title: caf\xe9", b"traceparent: \xff"))
        answer = await connection.answer()
    assert answer.status == 200, answer.body
    assert upstream.calls == 1


async def test_of_the_upstreams_headers_only_those_for_the_client_come_back(
    gateway: TestGateway, upstream: Upstream
) -> None:
    come_back = {
        "X-Generation-Id": "gen-7",
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "99",
        "X-RateLimit-Reset": "1700000000000",
        "x-ratelimit-remaining-tokens": "1",
        "openai-processing-ms": "12",
    }
    stay = {
        "Set-Cookie": "upstream=1",
        "Server": "cloudflare",
        "Via": "1.1 edge",
        "X-Powered-By": "x",
        "CF-Ray": "1-PRG",
        "Alt-Svc": 'h3=":443"',
        "Access-Control-Allow-Origin": "*",
        "Keep-Alive": "timeout=5",
        "x-request-id": "of-the-upstream",
        "x-gateway-provider": "Forged",
        "x-gateway-cost-usd": "1000",
        "Content-Language": "de",
    }
    for answer in (says(headers={**come_back, **stay}), fails(400, {**come_back, **stay})):
        upstream.answer(answer)
        _, headers, _ = await gateway.raw_chat()
        assert {name: headers.get(name.lower()) for name in come_back} == come_back
        for name, value in stay.items():
            assert headers.get(name.lower()) != value, name


@pytest.mark.parametrize("control", [b"\x01", b"\x08", b"\x0b", b"\x1b", b"\x7f"])
@pytest.mark.parametrize("kind", ["plain", "stream", "error"])
async def test_control_characters_in_the_upstreams_headers_cost_nobody_the_answer(
    gateway: TestGateway, upstream: Upstream, control: bytes, kind: str
) -> None:
    """No header may hold them (RFC 9110, 5.5). Some servers send them, and their answers are paid."""
    body = {"plain": json.dumps(COMPLETION).encode(), "stream": b"".join(ending()), "error": b"{}"}[kind]

    async def answering(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        status, content_type = (b"429 No", b"json") if kind == "error" else (b"200 OK", b"json")
        if kind == "stream":
            content_type = b"event-stream"
        head = b"HTTP/1.1 %b\r\nContent-Type: text/%b%b\r\nX-RateLimit-Limit: a%bb\r\nContent-Length: %d\r\n\r\n"
        request.transport.write(head % (status, content_type, control, control, len(body)) + body)
        request.transport.close()
        return web.Response()  # which reaches nobody

    upstream.answer(answering)
    status, headers, raw = await gateway.raw_chat({**HELLO, "stream": kind == "stream"})
    assert status == (429 if kind == "error" else 200)
    assert headers["x-ratelimit-limit"] == "ab"
    if kind != "error":
        assert raw == body
        assert headers["content-type"] == ("text/event-stream; charset=utf-8" if kind == "stream" else "text/json")


async def test_of_a_streams_headers_only_those_for_the_client_come_back(
    gateway: TestGateway, upstream: Upstream
) -> None:
    async def streaming(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "X-RateLimit-Limit": "9", "Set-Cookie": "a=b"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(b"".join([chunk("a"), *ending()]))
        return response

    upstream.answer(streaming)
    _, headers, _ = await gateway.raw_chat({**HELLO, "stream": True})
    assert headers["x-ratelimit-limit"] == "9"
    assert "set-cookie" not in headers


async def test_two_requests_do_not_share_cookies(gateway: TestGateway, upstream: Upstream) -> None:
    """A cookie that the upstream sets for one client is not sent with the next one's request."""
    upstream.answer(says(headers={"Set-Cookie": "session=1; Path=/"}))
    await gateway.raw_chat()
    await gateway.raw_chat()
    assert "Cookie" not in upstream.headers[1]
