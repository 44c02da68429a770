"""Whatever a client sends: no 5xx, no hang, errors in OpenAI's shape, and the gateway serves on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from proxy.api.openai.fields import FIELDS, ROLES
from tests.gateway.raw_http import chunked, connected, openai_error, request_bytes
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, chunk, ending, says, streams

HANG_SECONDS = 5
GOOD = json.dumps(HELLO).encode()


def fuzzed(examples: int) -> Callable[..., Any]:
    """One gateway serves all examples, on purpose: what one breaks the next one shows."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


async def as_asked(request: web.Request) -> web.StreamResponse:
    """A completion, or a stream if that was asked for (of two `stream` members the last counts, as everywhere)."""
    streamed = False
    try:
        streamed = json.loads(await request.read(), parse_int=str).get("stream") is True
    except ValueError as problem:
        raise AssertionError("what is no JSON reached the upstream") from problem
    return await (streams(chunk("a"), *ending()) if streamed else says(COMPLETION))(request)


@pytest.fixture
async def fuzzed_gateway(gateway: TestGateway, upstream: Upstream) -> TestGateway:
    """A gateway over an upstream that answers every request well."""
    upstream.answer(as_asked)
    return gateway


async def serves(gateway: TestGateway, request: bytes) -> None:
    """The request gets an answer in time that is not the gateway's fault, and so does a good one after it."""
    async with asyncio.timeout(HANG_SECONDS), connected(gateway.url) as connection:
        await connection.send(request)
        answer = await connection.answer()
        while answer.status == 100:
            answer = await connection.answer()
        assert answer.status == 200 or 400 <= answer.status < 500, answer
        if answer.status != 200:
            error = openai_error(answer.body)
            assert error["type"] == ("permission_error" if answer.status == 403 else "invalid_request_error")
            assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["x-request-id"]
        if not answer.closes:
            await connection.send(request_bytes(GOOD))
            assert (await connection.answer()).status == 200


async def books_balance(gateway: TestGateway, upstream: Upstream) -> None:
    """A good request is served at the end, and every request has its row."""
    async with asyncio.timeout(HANG_SECONDS):
        assert (await gateway.chat())[0] == 200
        _, health = await gateway.get("/health")
    assert health["status"] == "ok"
    assert health["ledger"]["set_aside_rows"] == 0


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()  # NaN and infinities too, which json.dumps writes as such
    | st.text(st.characters(), max_size=20)  # lone surrogates too
    | st.sampled_from(["auto", "", " ", "user", "\x00", "\r\n", "data:image/png;base64,AAAA", "z-ai/glm-4.6"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(ROLES) | SCALARS},
        optional={
            "content": st.text(max_size=40) | JSON | st.lists(st.fixed_dictionaries({"type": SCALARS, "text": JSON})),
            "name": JSON,
            "tool_calls": JSON,
            "reasoning_details": JSON,
        },
    )
    | JSON,
    max_size=4,
)
REQUESTS = st.fixed_dictionaries(
    {"model": st.sampled_from(["z-ai/glm-4.6", "auto"]) | SCALARS, "messages": MESSAGES},
    optional={name: JSON for name in FIELDS if name not in ("model", "messages")},
)
ENCODINGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, "\t"]), "sort_keys": st.booleans()}
)


def encoded(value: Any, how: dict[str, Any]) -> bytes:
    return json.dumps(value, **how).encode("utf-8", "surrogatepass")


@given(value=REQUESTS | JSON, how=ENCODINGS)
@fuzzed(250)
async def test_any_json(fuzzed_gateway: TestGateway, upstream: Upstream, value: Any, how: dict[str, Any]) -> None:
    await serves(fuzzed_gateway, request_bytes(encoded(value, how)))
    await books_balance(fuzzed_gateway, upstream)


VALID = json.dumps(
    {
        "model": "auto",
        "messages": [
            {"role": "system", "content": "Be brief. \ud800"},
            {"role": "user", "content": [{"type": "text", "text": "žluť 🐎"}, {"type": "image_url", "image_url": {}}]},
        ],
        "temperature": 0.5,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, {}]}}}],
        "stream": True,
    }
).encode()
PIECES = [
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"\\ud800",
    b"\\",
    b"\x00",
    b"\xff",
    b"1e999",
    b"//",
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good body with a few bytes cut out, doubled, or put in."""
    body = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "double", "put"]))
        if kind == "cut":
            del body[at:to]
        elif kind == "double":
            body[at:at] = body[at:to]
        else:
            body[at:to] = draw(st.sampled_from(PIECES) | st.binary(max_size=4))
    return bytes(body)


@given(body=mutations())
@fuzzed(600)
async def test_good_bodies_with_mistakes(fuzzed_gateway: TestGateway, upstream: Upstream, body: bytes) -> None:
    await serves(fuzzed_gateway, request_bytes(body))
    await books_balance(fuzzed_gateway, upstream)


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4))
@fuzzed(300)
async def test_any_bytes(fuzzed_gateway: TestGateway, upstream: Upstream, body: bytes, cuts: list[int]) -> None:
    """Declared, and in chunks of any size."""
    await serves(fuzzed_gateway, request_bytes(body))
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [body[start:end] for start, end in pairwise(places)]
    head = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    await serves(fuzzed_gateway, head + chunked(*pieces))
    await books_balance(fuzzed_gateway, upstream)


TEXT = st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=200)
VALUES = TEXT.map(str.encode) | st.binary(max_size=40).map(
    lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127)
)
NAMES = [
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Content-Encoding",
    "Content-Language",
    "Cookie",
    "Forwarded",
    "HTTP-Referer",
    "If-None-Match",
    "Keep-Alive",
    "Origin",
    "Pragma",
    "Range",
    "Referer",
    "TE",
    "User-Agent",
    "X-Forwarded-For",
    "X-HTTP-Method-Override",
    "X-OpenRouter-Title",
    "X-Request-Id",
    "X-Title",
    "traceparent",
    "x-stainless-retry-count",
]
TYPES = (
    st.sampled_from([b"application/json", b"text/plain", b"application/json; charset=x", b"*/*", b"application/"])
    | VALUES
)


@given(headers=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), content_type=st.none() | TYPES)
@fuzzed(400)
async def test_any_headers(
    fuzzed_gateway: TestGateway, upstream: Upstream, headers: dict[str, bytes], content_type: bytes | None
) -> None:
    lines = [name.encode() + b": " + value for name, value in headers.items()]
    await serves(fuzzed_gateway, request_bytes(GOOD, *lines, content_type=content_type))
    await books_balance(fuzzed_gateway, upstream)


PATHS = st.lists(
    st.sampled_from(
        ["v1", "chat", "completions", "models", "health", "docs", "..", ".", "", "%2e%2e", "%00", "%2f", "%"]
    )
    | st.text(st.sampled_from("abcXYZ019-._~!$&'()*+,;=:@%"), max_size=12),
    max_size=5,
).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])


@given(method=METHODS, path=PATHS, query=st.sampled_from(["", "?", "?a=b&c", "?%00"]))
@fuzzed(400)
async def test_any_path(fuzzed_gateway: TestGateway, upstream: Upstream, method: str, path: str, query: str) -> None:
    body = None if method == "GET" else GOOD
    await serves(fuzzed_gateway, request_bytes(body, method=method, path=path + query))
    await books_balance(fuzzed_gateway, upstream)
