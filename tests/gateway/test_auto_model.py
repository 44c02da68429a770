"""The reserved model `auto` through the running gateway: what it becomes, what it edits, and where it falls back to."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from aiohttp import web

from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import COMPLETION, HELLO, FakeTime, TestGateway, Upstream, chunk, ending, fails, says, streams

DEFAULT = "z-ai/glm-4.6"
LARGE = "moonshotai/Kimi-K2-Instruct-0905"
BALANCED = "deepseek-ai/DeepSeek-V3.1-Terminus"
AUTO = {**HELLO, "model": "auto"}


async def echoes_the_model(request: web.Request) -> web.Response:
    """A completion by the model that was asked for, as an upstream words it."""
    return web.json_response({**COMPLETION, "model": (await request.json())["model"]})


def models(upstream: Upstream) -> list[str]:
    """What the upstream was asked for."""
    return [json.loads(body)["model"] for body in upstream.bodies]


CHANGED_BY_PARSING = (
    rb'"a":1.0,"a":0.1000000000000000055511151231257827,"\ud800":"\udfff\/","n":null,'
    rb'"messages":[{"role":"user","content":"a\ud800","x":18446744073709551617}]'
)
EDITED: dict[str, tuple[bytes, bytes]] = {
    "plain": (
        b'{"model":"auto","messages":[{"role":"user","content":"a"}]}',
        b'{"model":"z-ai/glm-4.6","messages":[{"role":"user","content":"a"}]}',
    ),
    "odd spacing, and last": (
        b' {\n"messages" : [ {"role":"user","content":"a"}] ,"x":1e400,"model"\t:\r\n"auto" } \n',
        b' {\n"messages" : [ {"role":"user","content":"a"}] ,"x":1e400,"model"\t:\r\n"z-ai/glm-4.6" } \n',
    ),
    "written with escapes": (
        rb'{"m\u006fdel":"\u0061uto","messages":[{"role":"user","content":"a"}]}',
        rb'{"m\u006fdel":"z-ai/glm-4.6","messages":[{"role":"user","content":"a"}]}',
    ),
    "other members of that name": (
        b'{"metadata":{"model":"auto"},"model":"auto","messages":[{"role":"user","content":"a","model":"auto"}]}',
        b'{"metadata":{"model":"auto"},"model":"z-ai/glm-4.6","messages":[{"role":"user","content":"a","model":"auto"}]}',
    ),
    "the words in a text": (
        rb'{"user":"\"model\":\"auto\",{[","messages":[{"role":"user","content":"\"model\":\"auto\"}"}],"model":"auto"}',
        rb'{"user":"\"model\":\"auto\",{[","messages":[{"role":"user","content":"\"model\":\"auto\"}"}],"model":"z-ai/glm-4.6"}',
    ),
    "everything that parsing would change": (
        b"{%s,%s}" % (b'"model":"auto"', CHANGED_BY_PARSING),
        b"{%s,%s}" % (b'"model":"z-ai/glm-4.6"', CHANGED_BY_PARSING),
    ),
}


@pytest.mark.parametrize(("sent", "received"), EDITED.values(), ids=EDITED)
async def test_only_the_value_of_model_is_edited(
    gateway: TestGateway, upstream: Upstream, sent: bytes, received: bytes
) -> None:
    assert (await gateway.raw_chat(sent))[0] == 200
    assert upstream.bodies == [received]


async def test_auto_is_recognised_by_its_exact_name_only(gateway: TestGateway, upstream: Upstream) -> None:
    """`auto` with anything about it is somebody else's model."""
    names = ["Auto", "AUTO", " auto", "auto ", "openrouter/auto", "auto:free"]
    for name in names:
        await gateway.chat({**HELLO, "model": name})
    assert models(upstream) == names


LENGTHS = [
    pytest.param(0, DEFAULT, id="nothing"),
    pytest.param(40_003, DEFAULT, id="10,000 tokens"),
    pytest.param(40_004, LARGE, id="10,001 tokens"),
    pytest.param(800_003, LARGE, id="200,000 tokens"),
]


@pytest.mark.parametrize(("length", "model"), LENGTHS)
async def test_the_length_of_the_prompt_chooses_the_model(
    gateway: TestGateway, upstream: Upstream, length: int, model: str
) -> None:
    upstream.answer(echoes_the_model)
    status, headers, _ = await gateway.chat({**AUTO, "messages": [{"role": "user", "content": "x" * length}]})
    assert status == 200
    assert models(upstream) == [model]
    assert headers["x-gateway-model"] == model
    row = await gateway.row()
    assert (row.requested_model, row.model.value, row.was_fallback) == ("auto", model, False)


@pytest.mark.parametrize(("extra", "model"), [(0, DEFAULT), (1, LARGE)])
async def test_all_texts_count_and_nothing_else(
    gateway: TestGateway, upstream: Upstream, extra: int, model: str
) -> None:
    """Of every message, as a string or in parts; characters, not bytes; no pictures, names or tools."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "é" * 10_000, "name": "n" * 50_000},
        {"role": "user", "content": [{"type": "text", "text": "x" * 10_000}, picture, {"type": "text", "text": "🐎"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "y" * 50_000}}]},
        {"role": "tool", "tool_call_id": "t", "content": "z" * 20_000},
        {"role": "user", "content": "ab" + extra * "c"},
    ]
    await gateway.chat({**AUTO, "messages": messages, "tools": [{"x": "t" * 50_000}]})
    assert models(upstream) == [model]


async def test_a_prompt_too_long_for_every_model_is_refused(gateway: TestGateway, upstream: Upstream) -> None:
    status, _, raw = await gateway.raw_chat({**AUTO, "messages": [{"role": "user", "content": "x" * 800_004}]})
    assert status == 400
    error = openai_error(raw)
    assert error["message"] == "Token count 200001 exceeds limit 200000"
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        "messages",
        "context_length_exceeded",
    )
    assert upstream.calls == 0
    row = await gateway.row()
    assert (row.status, row.http_status) == (RequestStatus.REFUSED, 400)
    assert row.requested_model == "auto"


async def test_a_named_model_takes_any_length(gateway: TestGateway, upstream: Upstream) -> None:
    """Its limits are the upstream's business."""
    status, _, _ = await gateway.chat({**HELLO, "messages": [{"role": "user", "content": "x" * 800_004}]})
    assert status == 200
    assert models(upstream) == [DEFAULT]


async def test_odd_contents_are_no_obstacle_to_counting(gateway: TestGateway, upstream: Upstream) -> None:
    contents: list[Any] = [[], [5], [None], [{"type": "text"}], [{"type": "text", "text": 7}], [[{}]], None, ""]
    for content in contents:
        status, _, _ = await gateway.chat({**AUTO, "messages": [{"role": "user", "content": content}]})
        assert status == 200, content


async def test_the_models_behind_auto_can_be_set(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(
        auto_default_model="a/short", auto_large_context_model="b/long", auto_large_context_threshold_tokens=2
    )
    for text in ("x" * 11, "x" * 12):
        await gateway.chat({**AUTO, "messages": [{"role": "user", "content": text}]})
    assert models(upstream) == ["a/short", "b/long"]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_auto_falls_back_to_the_next_model(
    start_gateway: StartGateway, upstream: Upstream, streamed: bool
) -> None:
    gateway = await start_gateway(retry_max_retries=0)
    answer = streams(chunk("a", model=LARGE), *ending()) if streamed else echoes_the_model
    upstream.answer(fails(503), answer)
    status, headers, _ = await gateway.raw_chat({**AUTO, "stream": streamed})
    assert status == 200
    assert models(upstream) == [DEFAULT, LARGE]
    assert headers["x-gateway-model"] == LARGE
    assert headers["x-gateway-attempts"] == "2"
    row = await gateway.row()
    assert row.status is RequestStatus.SUCCESS
    assert (row.requested_model, row.model.value) == ("auto", LARGE)
    assert row.was_fallback
    assert row.attempts == 2


async def test_the_chain_is_walked_in_a_circle(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(retry_max_retries=0)
    upstream.answer(fails(503), fails(500), echoes_the_model)
    long = {**AUTO, "messages": [{"role": "user", "content": "x" * 50_000}]}
    status, headers, _ = await gateway.chat(long)
    assert status == 200
    assert models(upstream) == [LARGE, BALANCED, DEFAULT]
    assert headers["x-gateway-attempts"] == "3"


async def test_a_retry_comes_before_fallbacks_and_all_together_are_four_calls(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    time = FakeTime()
    gateway = await start_gateway(time.timing(), retry_max_retries=3, retry_base_seconds=1.0)
    upstream.answer(fails(503), fails(503), fails(503), echoes_the_model)
    _, headers, _ = await gateway.chat(AUTO)
    assert models(upstream) == [DEFAULT] * 2 + [LARGE, BALANCED]
    assert headers["x-gateway-attempts"] == "4"
    assert time.waits == [1.0]


async def test_a_model_that_the_upstream_does_not_have_is_fallen_back_from(
    gateway: TestGateway, upstream: Upstream
) -> None:
    upstream.answer(fails(404, message="No endpoints found"), echoes_the_model)
    assert (await gateway.chat(AUTO))[0] == 200
    assert models(upstream) == [DEFAULT, LARGE]


@pytest.mark.parametrize("status", [400, 402, 403, 413, 422])
async def test_what_another_model_would_not_mend_is_not_tried_on_one(
    gateway: TestGateway, upstream: Upstream, status: int
) -> None:
    upstream.answer(fails(status, message="the request's fault"))
    got, _, body = await gateway.chat(AUTO)
    assert got == status
    assert body["error"]["message"] == "the request's fault"
    assert models(upstream) == [DEFAULT]


async def test_when_all_models_fail_the_error_says_what_was_tried(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(retry_max_retries=0)
    upstream.answer(fails(503, message="first"), fails(429, message="second"), fails(500, message="third"))
    status, headers, raw = await gateway.raw_chat(AUTO)
    error = openai_error(raw)
    assert status == 502
    assert error["message"] == f"All providers failed: {DEFAULT}, {LARGE}, {BALANCED}"
    assert (error["type"], error["code"]) == ("server_error", "all_providers_failed")
    attempts = error["metadata"]["attempts"]
    assert [attempt["model"] for attempt in attempts] == [DEFAULT, LARGE, BALANCED]
    assert [attempt["error"] for attempt in attempts] == ["first", "second", "third"]
    assert headers["x-should-retry"] == "false"
    assert upstream.calls == 3
    row = await gateway.row()
    assert (row.status, row.http_status, row.attempts) == (RequestStatus.UPSTREAM_ERROR, 502, 3)
    assert row.requested_model == "auto"
    assert row.was_fallback


@pytest.mark.parametrize("answer", [fails(503), fails(404), fails(429)], ids=["503", "404", "429"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_model_that_is_named_is_never_replaced(
    start_gateway: StartGateway, upstream: Upstream, answer: Any, streamed: bool
) -> None:
    """Also one that the chain of `auto` holds."""
    gateway = await start_gateway(retry_max_retries=1)
    upstream.answer(answer)
    status, _, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert status in (503, 404, 429)
    assert openai_error(raw)["message"] == "no luck"
    assert set(models(upstream)) == {DEFAULT}
    row = await gateway.row()
    assert not row.was_fallback
    assert row.model.value == DEFAULT


async def test_falling_back_is_logged(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gateway = await start_gateway(retry_max_retries=0)
    upstream.answer(fails(503), says())
    await gateway.chat(AUTO)
    (record,) = [record for record in caplog.records if "trying the next" in record.message]
    assert record.levelno == logging.WARNING
    assert record.__dict__["model"] == DEFAULT
