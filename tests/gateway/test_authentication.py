"""Who is let in: whoever has the master key, and everyone when there is none."""

from __future__ import annotations

import json
import logging

import openai
import pytest

from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import RawAnswer, connected, openai_error, request_bytes
from tests.harness import HELLO, TestGateway, Upstream

KEY = "sk-gateway-master"
GOOD = json.dumps(HELLO).encode()


@pytest.fixture
async def locked(start_gateway: StartGateway) -> TestGateway:
    """A gateway that asks for the key."""
    return await start_gateway(llmgateway_master_key=KEY, llmgateway_master_key_calls_models=True)


async def ask(gateway: TestGateway, *header_lines: bytes, method: str = "POST", path: str = "") -> RawAnswer:
    """The answer to a chat completion with those headers, or to another path."""
    body = GOOD if method == "POST" else None
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(body, *header_lines, method=method, path=path or "/v1/chat/completions"))
        return await connection.answer()


LET_IN = {
    "as clients send it": b"Authorization: Bearer sk-gateway-master",
    "scheme in small letters": b"Authorization: bearer sk-gateway-master",
    "scheme in capitals": b"Authorization: BEARER sk-gateway-master",
    "name in small letters": b"authorization: Bearer sk-gateway-master",
    "more spaces": b"Authorization:   Bearer   sk-gateway-master  ",
}


@pytest.mark.parametrize("header", LET_IN.values(), ids=LET_IN)
async def test_the_right_key_is_let_in(locked: TestGateway, upstream: Upstream, header: bytes) -> None:
    assert (await ask(locked, header)).status == 200
    assert upstream.calls == 1
    assert upstream.headers[0]["Authorization"] == "Bearer sk-or-provider-secret"
    assert (await locked.row()).status is RequestStatus.SUCCESS


STRANGERS = {
    "no header": b"X-Nothing: x",
    "empty header": b"Authorization:",
    "scheme only": b"Authorization: Bearer",
    "scheme and a space": b"Authorization: Bearer ",
    "key without scheme": b"Authorization: sk-gateway-master",
    "another scheme": b"Authorization: Basic sk-gateway-master",
    "scheme run into the key": b"Authorization: Bearersk-gateway-master",
    "another key": b"Authorization: Bearer sk-another",
    "beginning of the key": b"Authorization: Bearer sk-gateway-maste",
    "key and more": b"Authorization: Bearer sk-gateway-masterx",
    "key in capitals": b"Authorization: Bearer SK-GATEWAY-MASTER",
    "key twice": b"Authorization: Bearer sk-gateway-master sk-gateway-master",
    "key in quotes": b'Authorization: Bearer "sk-gateway-master"',
    "the provider's key": b"Authorization: Bearer sk-or-provider-secret",
    "key in another header": b"X-Api-Key: sk-gateway-master",
    "key in a cookie": b"Cookie: Authorization=Bearer sk-gateway-master",
    "UTF-8": "Authorization: Bearer kľúč".encode(),
    "bytes that are no text": b"Authorization: Bearer \xff\xfe\xe9",
    "a scheme that is no text": b"Authorization: \xff\xfe sk-gateway-master",
    "key and bytes that are no text": b"Authorization: Bearer sk-gateway-master\xff",
}


@pytest.mark.parametrize("header", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_is_turned_away(
    locked: TestGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, header: bytes
) -> None:
    """In OpenAI's words, unbooked, and without the key that was tried in answer or log."""
    caplog.set_level(logging.DEBUG)
    answer = await ask(locked, header)
    assert answer.status == 401
    error = openai_error(answer.body)
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "invalid_api_key", None)
    assert answer.headers["x-request-id"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert upstream.calls == 0
    assert (await ask(locked, LET_IN["as clients send it"])).status == 200
    assert (await locked.row()).status is RequestStatus.SUCCESS  # the one row
    told = answer.body.decode() + caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert KEY not in told
    assert "sk-another" not in told
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "name", ["no header", "empty header", "scheme only", "key without scheme", "another scheme", "key in a cookie"]
)
async def test_who_shows_no_key_as_one_is_told_how(locked: TestGateway, name: str) -> None:
    """A good key is not called incorrect for where it stands: its holder would look for another."""
    error = openai_error((await ask(locked, STRANGERS[name])).body)
    assert error["message"] == "No API key given. Send it as 'Authorization: Bearer <key>'."


async def test_a_stranger_does_not_learn_whether_the_request_was_good(locked: TestGateway) -> None:
    answers = set()
    for body in (GOOD, b"{", b"", b"x" * 100_000):
        async with connected(locked.url) as connection:
            await connection.send(request_bytes(body))
            answer = await connection.answer()
            answers.add((answer.status, answer.body))
    assert len(answers) == 1


async def test_a_connection_survives_being_turned_away(locked: TestGateway, upstream: Upstream) -> None:
    """Or is closed, as announced; the refused body is not taken for a request."""
    async with connected(locked.url) as connection:
        await connection.send(request_bytes(GOOD))
        answer = await connection.answer()
        assert answer.status == 401
        if answer.closes:
            assert await connection.is_closed()
        else:
            await connection.send(request_bytes(GOOD, LET_IN["as clients send it"]))
            assert (await connection.answer()).status == 200
            assert upstream.bodies == [GOOD]


async def test_a_strangers_large_body_is_not_read(locked: TestGateway) -> None:
    head = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 20000000")
    async with connected(locked.url) as connection:
        await connection.send(head + b"{")
        answer = await connection.answer()
        assert answer.status == 401
        assert answer.closes


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/models"),
        ("GET", "/v1/models/z-ai/glm-4.6"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/nowhere"),
        ("GET", "/v1/models?api_key=sk-gateway-master"),
        ("GET", "/health/../v1/models"),
        ("GET", "/health/live/../../v1/models"),
        ("GET", "/docs/../v1/models"),
        ("GET", "/docs/%2e%2e/v1/models"),
        ("GET", "/docs/..%2fv1%2fmodels"),
        ("POST", "/docs/../v1/chat/completions"),
        ("POST", "/docs/%2e%2e/v1/chat/completions"),
        ("GET", "//v1/models"),
        ("GET", "/v1/models#/health"),
        ("GET", "/v1/%6dodels"),
    ],
)
async def test_every_other_path_asks_for_the_key(
    locked: TestGateway, upstream: Upstream, method: str, path: str
) -> None:
    """However it is spelt: nobody gets models or completions without it."""
    answer = await ask(locked, method=method, path=path)
    assert answer.status in (401, 404)
    openai_error(answer.body)
    assert b"glm" not in answer.body
    assert upstream.calls == 0
    if "docs" not in path:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/openapi.json", "/docs"])
async def test_health_and_docs_ask_for_no_key(locked: TestGateway, path: str) -> None:
    """Also from someone with a wrong one."""
    assert (await ask(locked, method="GET", path=path)).status == 200
    assert (await ask(locked, b"Authorization: Bearer wrong", method="GET", path=path)).status == 200
    assert KEY.encode() not in (await ask(locked, method="GET", path=path)).body


async def test_a_key_may_hold_any_characters(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="kľúč 🔑 = x", llmgateway_master_key_calls_models=True)
    assert (await ask(gateway, "Authorization: Bearer kľúč 🔑 = x".encode())).status == 200
    assert (await ask(gateway, "Authorization: Bearer kľúč 🔑 = y".encode())).status == 401


async def test_the_openai_sdk_knows_what_it_means(locked: TestGateway, upstream: Upstream) -> None:
    async with openai.AsyncOpenAI(base_url=str(locked.url / "v1"), api_key="wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as raised:
            await stranger.chat.completions.create(**HELLO)
    assert raised.value.code == "invalid_api_key"
    assert upstream.calls == 0
    async with openai.AsyncOpenAI(base_url=str(locked.url / "v1"), api_key=KEY) as friend:
        assert (await friend.chat.completions.create(**HELLO)).choices[0].message.content == "Hi there!"


@pytest.mark.parametrize("header", [b"X-Nothing: x", b"Authorization: Bearer anything", b"Authorization: \xff"])
async def test_without_a_master_key_everyone_is_let_in(gateway: TestGateway, upstream: Upstream, header: bytes) -> None:
    assert (await ask(gateway, header)).status == 200
    assert upstream.headers[0]["Authorization"] == "Bearer sk-or-provider-secret"
