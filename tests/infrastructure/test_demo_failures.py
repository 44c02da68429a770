"""The demo upstream's failures: those a model name asks for, and those of a bad request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from proxy.infrastructure.demo import demo_app, demo_upstream
from proxy.infrastructure.demo.answers import complete
from proxy.infrastructure.demo.generations import Generations
from proxy.infrastructure.demo.requests import read_request

CHAT = "/api/v1/chat/completions"
FAR_AWAY_SECONDS = 3600.0


@pytest.fixture
async def client(aiohttp_client: AiohttpClient) -> TestClient[Any, Any]:
    return await aiohttp_client(demo_app(chunk_pause_seconds=0, slow_seconds=0))


def asking(model: str, **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **members}


def data(text: str) -> list[dict[str, Any]]:
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event.startswith("data: {")]
    return [json.loads(event) for event in events]


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, "invalid_request"),
        (401, "authentication"),
        (402, "payment_required"),
        (418, "unmapped"),
        (503, "provider_overloaded"),
        (529, "provider_overloaded"),
        (599, "unmapped"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_model_refuses_with_its_status(
    client: TestClient[Any, Any], status: int, error_type: str, stream: bool
) -> None:
    response = await client.post(CHAT, json=asking(f"demo/error-{status}", stream=stream))
    document = await response.json()
    assert response.status == document["error"]["code"] == status
    assert document["error"]["metadata"] == {"error_type": error_type}
    assert str(status) in document["error"]["message"]
    assert document["user_id"] == "demo"
    assert response.headers.get("Retry-After") == ("1" if status == 503 else None)


async def test_a_rate_limit_error_says_when_to_come_back(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking("demo/error-429"))
    error = (await response.json())["error"]
    assert response.status == 429
    assert response.headers["Retry-After"] == "1"
    assert response.headers["X-RateLimit-Remaining"] == "0"
    assert error["metadata"]["error_type"] == "rate_limit_exceeded"
    assert error["metadata"]["headers"]["X-RateLimit-Reset"] == response.headers["X-RateLimit-Reset"]


@pytest.mark.parametrize("model", ["demo/error-399", "demo/error-600", "demo/error-", "demo/error-4000", "demo/x"])
async def test_other_names_that_look_special_just_answer(client: TestClient[Any, Any], model: str) -> None:
    response = await client.post(CHAT, json=asking(model))
    assert response.status == 200
    assert (await response.json())["model"] == model


async def test_flaky_refuses_twice_and_then_answers_over_and_over(client: TestClient[Any, Any]) -> None:
    statuses = [(await client.post(CHAT, json=asking("demo/flaky"))).status for _ in range(6)]
    assert statuses == [503, 503, 200, 503, 503, 200]


async def test_slow_does_not_begin_before_its_time() -> None:
    async with (
        demo_upstream(demo_app(slow_seconds=FAR_AWAY_SECONDS)) as base_url,
        aiohttp.ClientSession() as session,
    ):
        pending = asyncio.ensure_future(session.post(base_url + "chat/completions", json=asking("demo/slow")))
        for _ in range(10):
            async with session.post(base_url + "chat/completions", json=asking("demo/other")) as other:
                assert other.status == 200
        assert not pending.done()
        pending.cancel()


async def test_the_server_stops_without_waiting_for_open_answers() -> None:
    async with aiohttp.ClientSession() as session:
        async with demo_upstream(demo_app(slow_seconds=FAR_AWAY_SECONDS)) as base_url:
            pending = asyncio.ensure_future(session.post(base_url + "chat/completions", json=asking("demo/slow")))
            async with session.get(base_url + "models") as models:
                assert models.status == 200
        with pytest.raises(aiohttp.ClientError):
            await pending
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(base_url + "models")


async def test_cut_breaks_a_stream_after_three_chunks(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking("demo/cut", stream=True))
    received = [await response.content.readuntil(b"\n\n") for _ in range(4)]
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.content.readany()
    deltas = [chunk["choices"][0]["delta"] for chunk in data(b"".join(received).decode())]
    assert [delta["content"] for delta in deltas] == ["", "This", " is"]


async def test_cut_breaks_even_a_stream_that_has_nothing_to_say(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking("demo/cut", stream=True, stop="This"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


async def test_cut_breaks_a_plain_answer_in_the_middle_of_its_body(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking("demo/cut"))
    assert response.status == 200
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()


@pytest.mark.parametrize(("model", "chunks_before"), [("demo/error-in-stream", 3), ("demo/error-in-body", 0)])
async def test_a_failing_stream_ends_with_an_error_event(
    client: TestClient[Any, Any], model: str, chunks_before: int
) -> None:
    response = await client.post(CHAT, json=asking(model, stream=True))
    text = await response.text()
    *before, last = data(text)
    assert response.status == 200
    assert len(before) == chunks_before
    assert not any("error" in chunk for chunk in before)
    assert last["error"]["code"] == 502
    assert last["error"]["metadata"]["error_type"] == "provider_unavailable"
    assert last["object"] == "chat.completion.chunk"
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["delta"]) == ("error", {"content": ""})
    assert "[DONE]" not in text


@pytest.mark.parametrize("model", ["demo/error-in-stream", "demo/error-in-body"])
async def test_a_failing_plain_answer_is_an_error_with_status_200(client: TestClient[Any, Any], model: str) -> None:
    response = await client.post(CHAT, json=asking(model))
    document = await response.json()
    assert response.status == 200
    assert document["error"]["code"] == 502
    assert "choices" not in document


async def test_a_client_that_hangs_up_stops_its_stream() -> None:
    async with (
        demo_upstream(demo_app(chunk_pause_seconds=FAR_AWAY_SECONDS)) as base_url,
        aiohttp.ClientSession() as session,
    ):
        response = await session.post(base_url + "chat/completions", json=asking("any/model", stream=True))
        query = {"id": response.headers["X-Generation-Id"]}
        response.close()
        cancelled = False
        while not cancelled:  # the test's time-out is the limit
            async with session.get(base_url + "generation", params=query) as found:
                cancelled = (await found.json())["data"]["cancelled"]


async def test_hanging_up_after_the_end_is_no_cancellation(client: TestClient[Any, Any]) -> None:
    """Clients stop reading at `[DONE]`, so the generation must be complete before that is sent."""
    response = await client.post(CHAT, json=asking("any/model", stream=True))
    await response.content.readuntil(b"[DONE]")
    response.close()
    found = await client.get("/api/v1/generation", params={"id": response.headers["X-Generation-Id"]})
    generation = (await found.json())["data"]
    assert generation["cancelled"] is False
    assert generation["generation_time"] >= 0


def test_a_finished_generation_cannot_be_cancelled() -> None:
    generation = Generations().begin(complete(read_request(b'{"messages": [{}]}')), asked_at=0)
    generation.finish()
    generation.cancel()
    assert generation.document()["cancelled"] is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b"{}",
        b'{"messages": []}',
        b'{"messages": {}}',
        b'{"messages": ["text"]}',
        b'{"messages": [{}], "model": 7}',
        b'{"messages": [{}], "model": " "}',
        b'{"messages": [{}], "temperature": NaN}',
        b'{"messages": [{}], "temperature": 1e999}',
        b'{"messages": [{}], "seed": ' + b"9" * 5000 + b"}",
        b'{"messages": [{}], "tools": [{"function": {"name": "a"}}], "tool_choice": {"function": {"name": "b"}}}',
    ],
)
async def test_what_openrouter_refuses_is_refused_with_400(client: TestClient[Any, Any], body: bytes) -> None:
    response = await client.post(CHAT, data=body, headers={"Content-Type": "application/json"})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, 400)
    assert error["metadata"]["error_type"] == "invalid_request"
    assert error["message"]


TREE = {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefghij"}}
DEEP: Any = None
for _ in range(300):
    DEEP = {"const": DEEP}


@pytest.mark.parametrize(
    "members",
    [
        {"messages": [{}]},
        {"messages": [{"role": 7, "content": 7}]},
        {"messages": [{"role": "user", "content": [None, "text", {"text": 5}, []]}]},
        {"messages": [{"role": "tool", "content": None}]},
        {"model": None},
        {"stream": "yes", "n": 10**9, "max_tokens": 10**30, "stop": {"a": 1}},
        {"n": True, "max_tokens": -1, "max_completion_tokens": "5", "stop": ["", None, 5]},
        {"n": 1.5, "max_tokens": 0, "stop": None},
        {"tools": {}, "tool_choice": 5, "response_format": []},
        {"tools": [None, {"type": "custom", "custom": {"name": "c"}}, {"function": {"name": 5}}]},
        {"tools": [{"function": {"name": "f", "parameters": TREE}}], "tool_choice": {"allowed_tools": 5}},
        {"tools": [{"function": {"name": "\ud800", "parameters": {"enum": [{"\udfff": "\ud83d"}]}}}]},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": TREE}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/a/0/~1"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": DEEP}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5, "anyOf": 5, "enum": {}}}}},
        {"unknown": {"big": 2**70, "text": "\ud800"}},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_odd_but_valid_json_gets_an_answer(
    client: TestClient[Any, Any], members: dict[str, Any], stream: bool
) -> None:
    response = await client.post(CHAT, json={**asking("any/model", stream=stream), **members})
    text = await response.text()
    assert response.status == 200
    answers = data(text) if stream and members.get("stream") is None else [json.loads(text)]
    assert answers[-1]["usage"]["completion_tokens"] >= 1


async def test_a_value_too_deep_for_the_parser_is_the_clients_error(client: TestClient[Any, Any]) -> None:
    """What can be read can also be written back: around the parser's limit there is no depth that gives a 500."""
    statuses = set()
    for depth in range(960, 1020):
        schema = b'{"const": ' + b"[" * depth + b"]" * depth + b"}"
        body = b'{"messages": [{}], "response_format": {"type": "json_schema", "json_schema": {"schema": %b}}}' % schema
        statuses.add((await client.post(CHAT, data=body)).status)
    assert statuses <= {200, 400}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/generation", 400),
        ("GET", "/api/v1/generation?id=gen-unknown", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", CHAT, 405),
    ],
)
async def test_other_errors_have_openrouters_shape(
    client: TestClient[Any, Any], method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    document = await response.json()
    assert response.status == document["error"]["code"] == status
    assert document["error"]["message"]
    assert ("Allow" in response.headers) == (status == 405)
