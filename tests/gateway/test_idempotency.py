"""Requests with an Idempotency-Key, over real sockets: one upstream call, and the same answer for all."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from tests.conftest import StartGateway
from tests.gateway.raw_http import connected, request_bytes
from tests.harness import (
    COMPLETION,
    HELLO,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    cut,
    ending,
    fails,
    says,
    stall,
    streams,
)
from tests.valkey import Valkey

STREAMED = {**HELLO, "stream": True}
STREAM = [chunk("Hel"), chunk("lo"), *ending()]
BODIES = pytest.mark.parametrize("body", [HELLO, STREAMED], ids=["plain", "stream"])
KEEPS = ("content-type", "x-gateway-provider", "x-gateway-model", "x-generation-id", "x-ratelimit-limit", "retry-after")


def answers(upstream: Upstream, *after: Any) -> None:
    """Plain requests and streams, each as it wants to be answered, after what is given."""

    async def either(request: web.Request) -> web.StreamResponse:
        headers = {"x-generation-id": "gen-1", "x-ratelimit-limit": "7"}
        wants_stream = json.loads(upstream.bodies[-1]).get("stream")
        return await (streams(*STREAM) if wants_stream else says(headers=headers))(request)

    upstream.answer(*after, either)


def held(answering: Callable[[web.Request], Awaitable[web.StreamResponse]], gate: asyncio.Event) -> Any:
    """The same, once the gate is open."""

    async def wait(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await answering(request)

    return wait


def stream_in_two(gate: asyncio.Event) -> Any:
    """A stream that stops after its first event until the gate is open."""

    async def answering(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(STREAM[0])
        await gate.wait()
        for data in STREAM[1:]:
            await response.write(data)
        return response

    return answering


@asynccontextmanager
async def asking(gateway: TestGateway, body: Any, key: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer that has begun; leaving hangs up."""
    sent = {"Idempotency-Key": key, **headers}
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        response = await http.post(gateway.url / "v1/chat/completions", json=body, headers=sent)
        try:
            yield response
        finally:
            response.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def by_status(rows: list[RequestLog]) -> dict[RequestStatus, int]:
    return dict(Counter(row.status for row in rows))


def costs_nothing(row: RequestLog) -> bool:
    assert (row.attempts, row.input_tokens.value, row.output_tokens.value) == (0, 0, 0)
    return (row.cost(), row.cost_source, row.usage_source) == (None, CostSource.NONE, UsageSource.NONE)


# One after the other


@BODIES
async def test_the_same_request_sent_again_gets_the_same_answer(
    gateway: TestGateway, upstream: Upstream, body: Any
) -> None:
    answers(upstream)
    first = await gateway.raw_chat(body, Idempotency_Key="k1")
    again = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert (first[0], first[2]) == (again[0], again[2])
    assert upstream.calls == 1
    assert [first[1].get(name) for name in KEEPS] == [again[1].get(name) for name in KEEPS]
    assert "idempotent-replayed" not in first[1]
    assert again[1]["idempotent-replayed"] == "true"
    assert (again[1]["x-gateway-attempts"], again[1]["x-gateway-cost-usd"]) == ("0", "0")
    assert first[1]["x-request-id"] != again[1]["x-request-id"]


@BODIES
async def test_a_replay_is_a_row_of_its_own_and_costs_nothing(
    gateway: TestGateway, upstream: Upstream, body: Any
) -> None:
    answers(upstream)
    for _ in range(3):
        await gateway.raw_chat(body, Idempotency_Key="k1")
    *replays, first = await gateway.rows(3)
    assert (first.status, first.attempts, first.cost_source) == (RequestStatus.SUCCESS, 1, CostSource.REPORTED)
    assert [row.status for row in replays] == [RequestStatus.REPLAYED] * 2
    assert all(costs_nothing(row) for row in replays)
    assert all((row.http_status, row.stream) == (200, first.stream) for row in replays)
    _, report = await gateway.get("v1/usage?by=status")
    figures = {row["status"]: (row["requests"], row["errors"], row["cost_usd"]) for row in report["data"]}
    assert figures == {"success": (1, 0, "0.00123"), "replayed": (2, 0, "0")}
    assert report["total"]["requests_of_unknown_cost"] == 0
    assert report["total"]["input_tokens"] == 10


async def test_keys_without_a_request_in_common_have_nothing_in_common(
    gateway: TestGateway, upstream: Upstream
) -> None:
    for headers in ({"Idempotency_Key": "a"}, {"Idempotency_Key": "b"}, {}, {}):
        _, got, _ = await gateway.chat(**headers)
        assert "idempotent-replayed" not in got
    assert upstream.calls == 4


async def test_both_paths_are_the_same_operation(gateway: TestGateway, upstream: Upstream) -> None:
    await gateway.chat(Idempotency_Key="k1")
    headers = {"Idempotency-Key": "k1"}
    async with gateway.http.post(gateway.url / "chat/completions", json=HELLO, headers=headers) as response:
        assert response.headers["idempotent-replayed"] == "true"
    assert upstream.calls == 1


async def test_a_key_belongs_to_who_has_the_api_key_however_it_is_spelt(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-one", llmgateway_master_key_calls_models=True)
    await gateway.chat(Idempotency_Key="k1", Authorization="Bearer sk-one")
    _, headers, _ = await gateway.chat(Idempotency_Key="k1", Authorization="bearer  sk-one ")
    assert headers["idempotent-replayed"] == "true"
    status, _, _ = await gateway.chat(Idempotency_Key="k1", Authorization="Bearer sk-two")
    assert (status, upstream.calls) == (401, 1)


async def test_without_a_master_key_what_clients_send_as_theirs_does_not_matter(
    gateway: TestGateway, upstream: Upstream
) -> None:
    await gateway.chat(Idempotency_Key="k1", Authorization="Bearer any")
    _, headers, _ = await gateway.chat(Idempotency_Key="k1")
    assert headers["idempotent-replayed"] == "true"


async def test_payloads_of_replays_are_stored_like_any(start_gateway: StartGateway, upstream: Upstream) -> None:
    from tests.payloads.conftest import stored_payload

    answers(upstream)
    gateway = await start_gateway(llmgateway_store_payloads="all")
    for name in ("first", "again"):
        await gateway.raw_chat(STREAMED, Idempotency_Key="k1", x_request_id=name)
    for name in ("first", "again"):
        stored = await stored_payload(gateway.settings, name)
        assert stored.response is not None
        assert stored.response.body == b"".join(STREAM)
        assert stored.content_type == "text/event-stream"


# What is refused


@BODIES
async def test_another_body_with_the_same_key_is_refused(gateway: TestGateway, upstream: Upstream, body: Any) -> None:
    answers(upstream)
    await gateway.raw_chat(body, Idempotency_Key="k1")
    status, _, answer = await gateway.chat({**body, "temperature": 1}, Idempotency_Key="k1")
    assert status == 422
    assert answer["error"]["code"] == "idempotency_key_reused"
    assert answer["error"]["type"] == "invalid_request_error"
    assert upstream.calls == 1
    refused = (await gateway.rows(2))[0]
    assert (refused.status, refused.error_type) == (RequestStatus.REFUSED, "idempotency_key_reused")


async def test_other_tags_with_the_same_key_are_refused(gateway: TestGateway, upstream: Upstream) -> None:
    """The answer may come from a deployment that does not have them."""
    answers(upstream)
    await gateway.chat(Idempotency_Key="k1")
    status, _, answer = await gateway.chat(Idempotency_Key="k1", x_gateway_tags="eu")
    assert (status, answer["error"]["code"]) == (422, "idempotency_key_reused")


async def test_another_body_is_refused_also_while_the_first_runs(gateway: TestGateway, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.answer(held(says(), gate))
    first = asyncio.create_task(gateway.chat(Idempotency_Key="k1"))
    await until(lambda: upstream.calls == 1)
    status, _, _ = await gateway.chat({**HELLO, "temperature": 1}, Idempotency_Key="k1")
    gate.set()
    assert (status, (await first)[0]) == (422, 200)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "tab\there", "clé"])
async def test_a_malformed_key_is_refused(gateway: TestGateway, upstream: Upstream, key: str) -> None:
    status, _, answer = await gateway.chat(Idempotency_Key=key)
    assert (status, answer["error"]["code"], upstream.calls) == (400, "invalid_idempotency_key", 0)
    assert (await gateway.row()).status is RequestStatus.REFUSED


@pytest.mark.parametrize("key", ["!", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "~~"])
async def test_any_visible_characters_make_a_key(gateway: TestGateway, upstream: Upstream, key: str) -> None:
    for _ in range(2):
        status, _, _ = await gateway.chat(Idempotency_Key=key)
        assert status == 200
    assert upstream.calls == 1


async def test_two_keys_are_refused(gateway: TestGateway, upstream: Upstream) -> None:
    async with connected(gateway.url) as client:
        await client.send(request_bytes(json.dumps(HELLO).encode(), b"Idempotency-Key: a", b"Idempotency-Key: b"))
        answer = await client.answer()
    assert answer.status == 400
    assert upstream.calls == 0


async def test_a_request_that_is_not_valid_takes_no_key(gateway: TestGateway, upstream: Upstream) -> None:
    status, _, _ = await gateway.chat({"model": "m"}, Idempotency_Key="k1")
    assert status == 400
    status, headers, _ = await gateway.chat(Idempotency_Key="k1")
    assert (status, "idempotent-replayed" in headers) == (200, False)


# At the same time


@BODIES
async def test_fifty_at_once_are_one_upstream_call(gateway: TestGateway, upstream: Upstream, body: Any) -> None:
    gate = asyncio.Event()
    answers(upstream)
    upstream.answer(held(upstream.script[0], gate))
    asked = [asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1")) for _ in range(50)]
    await until(lambda: upstream.calls > 0)
    await asyncio.sleep(0.1)
    gate.set()
    got = await asyncio.gather(*asked)
    assert upstream.calls == 1
    assert len({(status, raw) for status, _, raw in got}) == 1
    assert got[0][0] == 200
    assert sum("idempotent-replayed" not in headers for _, headers, _ in got) == 1
    assert by_status(await gateway.rows(50)) == {RequestStatus.SUCCESS: 1, RequestStatus.REPLAYED: 49}


async def test_who_comes_later_gets_what_there_is_of_a_stream_and_then_the_rest_as_it_comes(
    gateway: TestGateway, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.answer(stream_in_two(gate))
    async with asking(gateway, STREAMED, "k1") as first, asking(gateway, STREAMED, "k1") as second:
        for response in (first, second):
            assert await response.content.readexactly(len(STREAM[0])) == STREAM[0]
        gate.set()
        rest = [await response.read() for response in (first, second)]
    assert rest == [b"".join(STREAM[1:])] * 2
    assert upstream.calls == 1


# When it fails


@BODIES
@pytest.mark.parametrize("status", [402, 408, 409, 429, 500, 503, 529])
async def test_an_error_that_may_pass_frees_the_key(
    start_gateway: StartGateway, upstream: Upstream, body: Any, status: int
) -> None:
    gateway = await start_gateway(retry_max_retries=0)
    answers(upstream, fails(status))
    got, _, _ = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert got == status
    got, headers, _ = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert (got, "idempotent-replayed" in headers, upstream.calls) == (200, False, 2)


async def test_a_time_out_frees_the_key(start_gateway: StartGateway, upstream: Upstream) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await stall(request)
        raise AssertionError

    gateway = await start_gateway(retry_max_retries=0, openrouter_timeout_seconds=0.1)
    answers(upstream, silent)
    assert (await gateway.raw_chat(Idempotency_Key="k1"))[0] == 504
    assert (await gateway.raw_chat(Idempotency_Key="k1"))[0] == 200


async def test_an_open_breaker_keeps_no_key(start_gateway: StartGateway, upstream: Upstream) -> None:
    time = FakeTime()
    gateway = await start_gateway(time.timing(), retry_max_retries=0, circuit_breaker_failure_threshold=1)
    answers(upstream, fails(500))
    await gateway.raw_chat()
    assert (await gateway.raw_chat(Idempotency_Key="k1"))[0] == 503
    time.now += 31
    assert (await gateway.raw_chat(Idempotency_Key="k1"))[0] == 200


@BODIES
@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_an_error_for_good_is_kept(gateway: TestGateway, upstream: Upstream, body: Any, status: int) -> None:
    answers(upstream, fails(status, metadata={"reasons": ["flagged"]}))
    first = await gateway.raw_chat(body, Idempotency_Key="k1")
    again = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert (first[0], first[2]) == (again[0], again[2]) == (status, first[2])
    assert (first[1]["x-gateway-attempts"], again[1]["x-gateway-attempts"]) == ("1", "0")
    assert first[1]["content-type"] == again[1]["content-type"]
    assert upstream.calls == 1
    replay, made = await gateway.rows(2)
    assert (made.status, replay.status) == (RequestStatus.UPSTREAM_ERROR, RequestStatus.REPLAYED)
    assert (replay.http_status, replay.error_type) == (made.http_status, made.error_type)


@BODIES
async def test_those_who_wait_for_a_failure_share_it(
    start_gateway: StartGateway, upstream: Upstream, body: Any
) -> None:
    """Else an outage would be met with as many calls, one after the other."""
    gate = asyncio.Event()
    gateway = await start_gateway(retry_max_retries=0)
    answers(upstream, held(fails(429, {"Retry-After": "7"}), gate))
    asked = [asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1")) for _ in range(10)]
    await until(lambda: upstream.calls > 0)
    await asyncio.sleep(0.1)
    gate.set()
    got = await asyncio.gather(*asked)
    assert len({(status, raw, headers["retry-after"]) for status, headers, raw in got}) == 1
    assert (got[0][0], got[0][1]["retry-after"], upstream.calls) == (429, "7", 1)
    assert (await gateway.raw_chat(body, Idempotency_Key="k1"))[0] == 200


async def test_a_cut_stream_is_told_to_all_who_follow_it_and_not_kept(gateway: TestGateway, upstream: Upstream) -> None:
    gate = asyncio.Event()

    async def cut_later(request: web.Request) -> None:
        await gate.wait()
        await cut(request)

    answers(upstream, streams(chunk("Hel"), then=cut_later))
    asked = [asyncio.create_task(gateway.raw_chat(STREAMED, Idempotency_Key="k1")) for _ in range(5)]
    await until(lambda: upstream.calls > 0)
    await asyncio.sleep(0.1)
    gate.set()
    got = await asyncio.gather(*asked)
    assert len({raw for _, _, raw in got}) == 1
    assert b'"error"' in got[0][2]
    assert b"[DONE]" not in got[0][2]
    rows = await gateway.rows(5)
    assert by_status(rows) == {RequestStatus.STREAM_BROKEN: 5}
    assert sum(costs_nothing(row) for row in rows if row.attempts == 0) == 4
    _, headers, raw = await gateway.raw_chat(STREAMED, Idempotency_Key="k1")
    assert (raw, "idempotent-replayed" in headers) == (b"".join(STREAM), False)


async def test_a_stream_with_an_error_in_it_is_not_kept(gateway: TestGateway, upstream: Upstream) -> None:
    answers(upstream, streams(chunk("Hel"), b'data: {"error": {"code": 502, "message": "oh"}}\n\n', ending()[-1]))
    _, _, raw = await gateway.raw_chat(STREAMED, Idempotency_Key="k1")
    assert b"oh" in raw
    _, _, raw = await gateway.raw_chat(STREAMED, Idempotency_Key="k1")
    assert raw == b"".join(STREAM)


# When somebody hangs up


@BODIES
async def test_who_hangs_up_alone_ends_the_upstream_call_and_frees_the_key(
    gateway: TestGateway, upstream: Upstream, body: Any
) -> None:
    async def begins(request: web.Request) -> web.StreamResponse:
        return await streams(chunk("Hel"), then=stall)(request) if "stream" in body else await never(request)

    async def never(request: web.Request) -> web.StreamResponse:
        await stall(request)
        raise AssertionError

    answers(upstream, begins)
    alone = asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1"))
    await until(lambda: upstream.calls == 1)
    alone.cancel()
    await until(lambda: upstream.cancelled == 1)
    status, headers, _ = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert (status, "idempotent-replayed" in headers, upstream.calls) == (200, False, 2)
    assert by_status(await gateway.rows(2)) == {RequestStatus.CLIENT_DISCONNECTED: 1, RequestStatus.SUCCESS: 1}


@BODIES
async def test_when_the_first_hangs_up_the_call_goes_on_for_those_who_wait(
    gateway: TestGateway, upstream: Upstream, body: Any
) -> None:
    gate = asyncio.Event()
    upstream.answer(stream_in_two(gate) if "stream" in body else held(says(), gate))
    first = asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1", x_request_id="first"))
    await until(lambda: upstream.calls == 1)
    second = asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1", x_request_id="second"))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.sleep(0.1)
    assert upstream.cancelled == 0
    gate.set()
    status, _, raw = await second
    assert (status, upstream.calls, upstream.cancelled) == (200, 1, 0)
    assert raw == (b"".join(STREAM) if "stream" in body else json.dumps(COMPLETION).encode())
    rows = {row.request_id: row for row in await gateway.rows(2)}
    assert rows["first"].status is RequestStatus.CLIENT_DISCONNECTED
    assert (rows["first"].output_tokens.value, rows["first"].cost_source) == (5, CostSource.REPORTED)
    assert rows["second"].status is RequestStatus.REPLAYED
    assert costs_nothing(rows["second"])
    assert (await gateway.raw_chat(body, Idempotency_Key="k1"))[2] == raw
    assert upstream.calls == 1


@BODIES
async def test_when_all_have_hung_up_the_call_ends(gateway: TestGateway, upstream: Upstream, body: Any) -> None:
    upstream.answer(stream_in_two(asyncio.Event()) if "stream" in body else held(says(), asyncio.Event()))
    asked = [asyncio.create_task(gateway.raw_chat(body, Idempotency_Key="k1")) for _ in range(3)]
    await until(lambda: upstream.calls == 1)
    await asyncio.sleep(0.1)
    for task in asked:
        task.cancel()
    await until(lambda: upstream.cancelled == 1)
    rows = await gateway.rows(3)
    assert by_status(rows) == {RequestStatus.CLIENT_DISCONNECTED: 3}
    assert sorted(row.attempts for row in rows) == [0, 0, 1]


async def test_who_follows_may_hang_up_without_harm(gateway: TestGateway, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.answer(stream_in_two(gate))
    async with asking(gateway, STREAMED, "k1") as first:
        async with asking(gateway, STREAMED, "k1") as second:
            await second.content.readexactly(len(STREAM[0]))
        gate.set()
        assert await first.read() == b"".join(STREAM)
    assert by_status(await gateway.rows(2)) == {RequestStatus.SUCCESS: 1, RequestStatus.CLIENT_DISCONNECTED: 1}


async def test_a_client_that_leaves_at_done_has_had_the_whole_answer(gateway: TestGateway, upstream: Upstream) -> None:
    """The upstream keeps its connection open after `[DONE]`; the answer is complete all the same."""
    answers(upstream, streams(*STREAM, then=stall))
    async with asking(gateway, STREAMED, "k1") as response:
        await response.content.readexactly(len(b"".join(STREAM)))
    _, headers, raw = await gateway.raw_chat(STREAMED, Idempotency_Key="k1")
    assert (raw, headers["idempotent-replayed"], upstream.calls) == (b"".join(STREAM), "true", 1)


# How long, and how much


async def test_an_answer_is_kept_for_ten_minutes(start_gateway: StartGateway, upstream: Upstream) -> None:
    time = FakeTime()
    gateway = await start_gateway(time.timing())
    await gateway.chat(Idempotency_Key="k1")
    time.now += 599
    assert (await gateway.chat(Idempotency_Key="k1"))[1]["idempotent-replayed"] == "true"
    time.now += 1
    assert "idempotent-replayed" not in (await gateway.chat(Idempotency_Key="k1"))[1]
    assert upstream.calls == 2


async def test_a_key_whose_time_is_over_may_have_another_body(start_gateway: StartGateway, upstream: Upstream) -> None:
    time = FakeTime()
    gateway = await start_gateway(time.timing())
    await gateway.chat(Idempotency_Key="k1")
    time.now += 600
    assert (await gateway.chat({**HELLO, "temperature": 1}, Idempotency_Key="k1"))[0] == 200


@BODIES
async def test_an_answer_too_large_to_be_kept_is_not_made_twice(
    gateway: TestGateway, upstream: Upstream, body: Any
) -> None:
    large = {**COMPLETION, "padding": "x" * 9_000_000}
    sent = [chunk("x" * 300_000) for _ in range(30)] + ending()
    upstream.answer(streams(*sent) if "stream" in body else says(large))
    status, _, raw = await gateway.raw_chat(body, Idempotency_Key="k1")
    assert (status, raw) == (200, b"".join(sent) if "stream" in body else json.dumps(large).encode())
    status, headers, answer = await gateway.chat(body, Idempotency_Key="k1")
    assert (status, answer["error"]["code"]) == (409, "idempotent_answer_not_kept")
    assert headers["x-should-retry"] == "false"
    assert upstream.calls == 1


async def test_large_answers_reach_all_who_were_there(gateway: TestGateway, upstream: Upstream) -> None:
    gate = asyncio.Event()
    large = {**COMPLETION, "padding": "x" * 9_000_000}
    upstream.answer(held(says(large), gate))
    asked = [asyncio.create_task(gateway.raw_chat(Idempotency_Key="k1")) for _ in range(3)]
    await until(lambda: upstream.calls > 0)
    await asyncio.sleep(0.1)
    gate.set()
    got = await asyncio.gather(*asked)
    assert {(status, raw) for status, _, raw in got} == {(200, json.dumps(large).encode())}


# The OpenAI SDK


@asynccontextmanager
async def sdk(url: str, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key="any", **options) as client:
        yield client


@asynccontextmanager
async def losing_the_first_answer(gateway: TestGateway) -> AsyncIterator[str]:
    """A network that takes the first answer from the gateway and breaks down before the client has any of it."""
    losses = 1

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal losses
        from_gateway, to_gateway = await asyncio.open_connection(gateway.url.host, gateway.url.port)
        sending = asyncio.create_task(pump(reader, to_gateway))
        if losses:
            losses -= 1
            await from_gateway.readuntil(b"\r\n\r\n")
            await from_gateway.readuntil(b"}]")
            writer.transport.abort()
        else:
            await pump(from_gateway, writer)
        sending.cancel()
        to_gateway.close()
        writer.close()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_a_retry_of_the_sdk_is_not_paid_twice(gateway: TestGateway, upstream: Upstream) -> None:
    async with losing_the_first_answer(gateway) as url, sdk(url, max_retries=2) as client:
        raw = await client.chat.completions.with_raw_response.create(
            **HELLO, extra_headers={"Idempotency-Key": "sdk-1"}
        )
    assert raw.parse().choices[0].message.content == "Hi there!"
    assert raw.headers["idempotent-replayed"] == "true"
    assert raw.retries_taken == 1
    assert upstream.calls == 1


async def test_the_sdk_reads_a_replayed_stream_as_any_other(gateway: TestGateway, upstream: Upstream) -> None:
    answers(upstream)
    texts = []
    async with sdk(str(gateway.url / "v1")) as client:
        for _ in range(2):
            stream = await client.chat.completions.create(**STREAMED, extra_headers={"Idempotency-Key": "sdk-1"})
            texts.append("".join([c.choices[0].delta.content or "" async for c in stream if c.choices]))
    assert texts == ["Hello", "Hello"]
    assert upstream.calls == 1


async def test_the_sdk_takes_neither_refusal_for_something_to_retry(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(says({**COMPLETION, "padding": "x" * 9_000_000}))
    headers = {"Idempotency-Key": "sdk-1"}
    async with sdk(str(gateway.url / "v1"), max_retries=2) as client:
        await client.chat.completions.create(**HELLO, extra_headers=headers)
        with pytest.raises(openai.UnprocessableEntityError):
            await client.chat.completions.create(**HELLO, temperature=1, extra_headers=headers)
        with pytest.raises(openai.ConflictError):
            await client.chat.completions.create(**HELLO, extra_headers=headers)
    assert len(await gateway.rows(3)) == 3


# Several gateways


@BODIES
async def test_gateways_that_share_a_valkey_know_each_others_keys(
    start_gateway: StartGateway, upstream: Upstream, valkey: Valkey, body: Any
) -> None:
    gate = asyncio.Event()
    answers(upstream)
    upstream.answer(held(upstream.script[0], gate))
    one, other = [await start_gateway(llmgateway_valkey_url=valkey.url, valkey_deadline_seconds=1.0) for _ in "12"]
    asked = [asyncio.create_task(each.raw_chat(body, Idempotency_Key="k1")) for each in (one, other, one, other)]
    await until(lambda: upstream.calls > 0)
    await asyncio.sleep(0.1)
    gate.set()
    got = [*await asyncio.gather(*asked), await other.raw_chat(body, Idempotency_Key="k1")]
    assert upstream.calls == 1
    assert len({(status, raw, headers["x-generation-id"]) for status, headers, raw in got}) == 1
    assert sum("idempotent-replayed" not in headers for _, headers, _ in got) == 1
    assert by_status(await one.rows(5)) == {RequestStatus.SUCCESS: 1, RequestStatus.REPLAYED: 4}


async def test_without_valkey_each_gateway_knows_its_own_keys_and_says_so(
    start_gateway: StartGateway, upstream: Upstream, valkey: Valkey
) -> None:
    gateway = await start_gateway(llmgateway_valkey_url=valkey.url, valkey_deadline_seconds=1.0)
    assert (await gateway.get("/health"))[1]["idempotency"]["mode"] == "valkey"
    valkey.kill()
    for _ in range(2):
        assert (await gateway.raw_chat(Idempotency_Key="k1"))[0] == 200
    assert upstream.calls == 1
    _, health = await gateway.get("/health")
    assert (health["status"], health["idempotency"]["mode"]) == ("degraded", "memory")
    assert any("idempotency keys are each process's own" in problem for problem in health["problems"])
