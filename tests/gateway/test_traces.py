"""Why a request went where it went: in a header at once, by its id later."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from tests.conftest import StartGateway
from tests.gateway.test_configuration import Start, model_file, second, start
from tests.harness import HELLO, TestGateway, Upstream, chunk, ending, fails, says, streams

__all__ = ["second", "start"]


async def explained(gateway: TestGateway, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            status, body = await gateway.get(f"/v1/requests/{request_id}")
            if status == 200 and body["trace"] is not None:
                found: dict[str, Any] = body
                return found
            await asyncio.sleep(0.05)


async def test_a_failed_attempt_is_in_the_header_and_in_the_trace(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(fails(429))
    _, headers, _ = await gateway.chat({**HELLO, "model": "fast"}, **{"x-request-id": "why-1"})
    assert re.fullmatch(r"one/first/fast:429@[\d.]+s > two/second/fast:200@[\d.]+s", headers["x-gateway-trace"])
    found = await explained(gateway, "why-1")
    trace = found["trace"]
    assert trace["strategy"] == "priority"
    assert [each["deployment"] for each in trace["candidates"]] == [
        "one/first/fast",
        "two/second/fast",
        "two/second/large",
    ]
    assert [(each["deployment"], each["status"], each["error"]) for each in trace["attempts"]] == [
        ("one/first/fast", 429, "http_429"),
        ("two/second/fast", 200, None),
    ]
    assert trace["attempts"][1]["cost_usd"] == found["reported_cost_usd"]


async def test_a_stream_has_both_too(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(fails(503))
    second.answer(streams(chunk("hi"), *ending()))
    body = {**HELLO, "model": "fast", "stream": True}
    _, headers, _ = await gateway.raw_chat(body, **{"x-request-id": "why-2"})
    assert headers["x-gateway-trace"].startswith("one/first/fast:503@")
    assert len((await explained(gateway, "why-2"))["trace"]["attempts"]) == 2


async def test_an_error_lists_its_attempts(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(fails(503))
    second.answer(fails(500))
    _, headers, body = await gateway.chat({**HELLO, "model": "fast"})
    first = body["error"]["metadata"]["attempts"][0]
    assert (first["deployment"], first["model"], first["status"]) == ("one/first/fast", "first/fast", 503)
    assert headers["x-gateway-trace"].count(" > ") == 2


async def test_who_was_left_out_and_why(start: Start, upstream: Upstream, second: Upstream) -> None:
    gateway = await start(
        model_file(upstream, second, fallbacks="general: {}").replace("order: 1", "order: 1\n        capabilities: []"),
        retry_max_retries=0,
        circuit_breaker_failure_threshold=1,
    )
    second.answer(fails(503))
    body = {**HELLO, "model": "fast", "tools": [{"type": "function", "function": {"name": "f"}}]}
    await gateway.chat(body)
    status, _, answer = await gateway.chat(body, **{"x-request-id": "why-3"})
    assert (status, answer["error"]["code"]) == (503, "no_deployment_available")
    dropped = (await explained(gateway, "why-3"))["trace"]["dropped"]
    assert dropped[0]["deployment"] == "one/first/fast"
    assert "tools" in dropped[0]["reason"]
    assert "breaker open" in dropped[1]["reason"]


async def test_a_plain_success_leaves_no_trace_unless_all_are_wanted(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    for mode, count in (("notable", 0), ("all", 1), ("off", 0)):
        gateway = await start_gateway(llmgateway_traces=mode)
        upstream.answer(says())
        await gateway.chat(**{"x-request-id": f"plain-{mode}"})
        await gateway.rows(1)
        if count:
            assert (await explained(gateway, f"plain-{mode}"))["trace"]["attempts"][0]["deployment"] == "OpenRouter"
        else:
            assert (await gateway.get(f"/v1/requests/plain-{mode}"))[1]["trace"] is None


async def test_an_error_to_a_request_with_a_key_has_the_header_too(
    start: Start, upstream: Upstream, second: Upstream
) -> None:
    gateway = await start(model_file(upstream, second))
    upstream.answer(fails(400))
    body = {**HELLO, "model": "fast"}
    for stream in (False, True):
        status, headers, _ = await gateway.chat({**body, "stream": stream}, **{"idempotency-key": f"key-{stream}"})
        assert status == 400
        assert headers["x-gateway-trace"].startswith("one/first/fast:400@")
    status, headers, _ = await gateway.chat({**body, "stream": True}, **{"idempotency-key": "key-True"})
    assert (status, headers["x-gateway-trace"]) == (400, "none")
