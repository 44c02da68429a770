"""Streams through the running gateway, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from decimal import Decimal
from typing import Any

import openai
import pytest
from aiohttp import web

from proxy.domain.request_log import CostSource, RequestStatus, UsageSource
from proxy.domain.values import CostAmount
from tests.conftest import StartGateway
from tests.harness import HELLO, FakeTime, TestGateway, Upstream, chunk, cut, ending, fails, stall, streams

STREAMED = {**HELLO, "stream": True}
DONE = b"data: [DONE]\n\n"


def errors_in(raw: bytes) -> list[dict[str, Any]]:
    """The error objects of a stream's events."""
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith(b"data: {")]
    return [event["error"] for event in events if "error" in event]


async def read_by_the_sdk(gateway: TestGateway) -> None:
    """Reads a whole stream; raises what the SDK raises."""
    async with openai.AsyncOpenAI(base_url=str(gateway.url / "v1"), api_key="any", max_retries=0) as client:
        async for _ in await client.chat.completions.create(**STREAMED):
            pass


async def test_a_stream_comes_through_byte_for_byte_and_is_booked(gateway: TestGateway, upstream: Upstream) -> None:
    sent = [b": OPENROUTER PROCESSING\n\n", chunk("Hel"), b": keep-alive\n\n", chunk("lo"), *ending()]
    upstream.answer(streams(*sent))
    status, headers, raw = await gateway.raw_chat(STREAMED)
    assert status == 200
    assert raw == b"".join(sent)
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["x-generation-id"] == "gen-1"
    assert headers["x-gateway-model"] == "z-ai/glm-4.6"
    assert json.loads(upstream.bodies[0]) == STREAMED
    row = await gateway.row()
    assert row.status is RequestStatus.SUCCESS
    assert row.stream
    assert (row.input_tokens.value, row.output_tokens.value) == (10, 5)
    assert row.cost_source is CostSource.REPORTED
    assert row.usage_source is UsageSource.REPORTED
    assert row.time_to_first_byte_ms is not None


@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(lambda event: event.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda event: event.replace(b"\n", b"\r"), id="CR"),
        pytest.param(lambda event: b"event: message\nid: 7\nretry: 10\n" + event, id="other fields"),
        pytest.param(lambda event: event.replace(b"data: ", b"data:"), id="no space"),
        pytest.param(lambda event: event.replace(b"{", b"{ \ndata: ", 1), id="several data lines"),
    ],
)
async def test_any_framing_comes_through_and_is_understood(
    gateway: TestGateway, upstream: Upstream, framed: Any
) -> None:
    sent = [framed(event) for event in (chunk("a"), chunk("b"), *ending()[:2])] + [framed(DONE)]
    upstream.answer(streams(*sent))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(sent)
    row = await gateway.row()
    assert row.status is RequestStatus.SUCCESS
    assert row.output_tokens.value == 5


async def test_reads_may_split_anywhere(gateway: TestGateway, upstream: Upstream) -> None:
    """Inside UTF-8 characters, between CR and LF, inside field names."""
    sent = b"".join([chunk("žluťoučký 🐎".encode().decode()).replace(b"\n", b"\r\n"), chunk("日本"), *ending()])
    raw_utf8 = sent.decode().encode().replace(b"\\u65e5", "日".encode())
    upstream.answer(streams(*(raw_utf8[at : at + 3] for at in range(0, len(raw_utf8), 3))))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == raw_utf8
    assert (await gateway.row()).output_tokens.value == 5


async def test_a_line_of_a_megabyte_comes_through(gateway: TestGateway, upstream: Upstream) -> None:
    picture = "data:image/png;base64," + "A" * 3_000_000
    sent = [chunk("a"), chunk(images=[{"type": "image_url", "image_url": {"url": picture}}]), *ending()]
    upstream.answer(streams(*sent))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(sent)
    assert (await gateway.row()).output_tokens.value == 5


async def test_ten_thousand_chunks_come_in_order(gateway: TestGateway, upstream: Upstream) -> None:
    sent = [chunk(f"{number} ") for number in range(10_000)] + ending()
    upstream.answer(streams(*sent))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(sent)


async def test_two_hundred_streams_at_once_do_not_mix(gateway: TestGateway, upstream: Upstream) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        name = json.loads(upstream.bodies[-1])["user"]
        return await streams(*(chunk(f"{name}-{n}") for n in range(20)), *ending(), pause_seconds=0.001)(request)

    upstream.answer(echo)
    answers = await asyncio.gather(*(gateway.raw_chat({**STREAMED, "user": f"u{n}"}) for n in range(200)))
    for number, (_, _, raw) in enumerate(answers):
        assert raw == b"".join([*(chunk(f"u{number}-{n}") for n in range(20)), *ending()])
    rows = await gateway.rows(200)
    assert len({row.id for row in rows}) == 200
    assert all(row.status is RequestStatus.SUCCESS for row in rows)


async def test_an_error_event_first_is_a_plain_http_error(gateway: TestGateway, upstream: Upstream) -> None:
    """Also after comments and a role preamble."""
    preamble = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
    error = {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}, "choices": []}
    event = b"data: " + json.dumps(error).encode() + b"\n\n"
    upstream.answer(streams(b": OPENROUTER PROCESSING\n\n", preamble, event, pause_seconds=0.01))
    status, _, body = await gateway.chat(STREAMED)
    assert status == 403
    assert body["error"]["message"] == "flagged"
    assert body["error"]["metadata"] == {"reasons": ["x"]}
    assert (await gateway.row()).status is RequestStatus.UPSTREAM_ERROR


async def test_an_error_before_the_stream_is_a_plain_http_error(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(fails(400, message="no such model"))
    status, headers, body = await gateway.chat(STREAMED)
    assert status == 400
    assert headers["content-type"].startswith("application/json")
    assert body["error"]["message"] == "no such model"


async def test_an_error_event_in_the_middle_reaches_the_client_as_it_is(
    gateway: TestGateway, upstream: Upstream
) -> None:
    error = b'data: {"id":"gen-1","error":{"code":502,"message":"provider gone"},"choices":[]}\n\n'
    upstream.answer(streams(chunk("a"), error))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == chunk("a") + error
    row = await gateway.row()
    assert row.status is RequestStatus.STREAM_BROKEN
    upstream.answer(streams(chunk("a"), error))
    with pytest.raises(openai.APIError, match="provider gone"):
        await read_by_the_sdk(gateway)


async def test_an_error_that_ends_the_stream_is_the_upstreams_own_though_its_event_has_no_end(
    gateway: TestGateway, upstream: Upstream
) -> None:
    error = b'data: {"error":{"code":503,"message":"gone","metadata":{"error_type":"provider_overloaded"}}}\n'
    upstream.answer(streams(chunk("a"), error))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == chunk("a") + error + b"\n\n"
    assert (await gateway.row()).status is RequestStatus.STREAM_BROKEN


@pytest.mark.parametrize("later", [0, 3, 200], ids=["at the end", "near the end", "long before it"])
async def test_an_error_is_booked_however_much_follows_it(gateway: TestGateway, upstream: Upstream, later: int) -> None:
    error = b'data: {"id":"gen-1","error":{"code":502,"message":"provider gone"},"choices":[]}\n\n'
    writes = [chunk("a"), error, *[chunk("z" * 2000)] * later, *ending()]
    upstream.answer(streams(*writes))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(writes)
    row = await gateway.row()
    assert (row.status, row.error_type) == (RequestStatus.STREAM_BROKEN, "error_in_stream")


@pytest.mark.parametrize("words", [b"", b"[DONE] data: [DONE] "], ids=["", "a text that says it"])
@pytest.mark.parametrize("after", [b": " + b"x" * 5000 + b"\n\n", b"event: bye\ndata: {}\n\n" * 9])
async def test_done_counts_whatever_follows_it_in_the_same_read(
    gateway: TestGateway, upstream: Upstream, words: bytes, after: bytes
) -> None:
    finish, usage, done = ending()
    writes = [chunk("a"), chunk(words.decode()), finish, usage + done + after]
    upstream.answer(streams(*writes))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(writes)
    row = await gateway.row()
    assert (row.status, row.output_tokens.value) == (RequestStatus.SUCCESS, 5)


@pytest.mark.parametrize(
    ("writes", "then"),
    [
        pytest.param([chunk("a"), chunk("b")], cut, id="reset"),
        pytest.param([chunk("a"), chunk("b")[:40]], cut, id="reset inside an event"),
        pytest.param([chunk("a"), chunk("b")], None, id="ended without DONE"),
        pytest.param([chunk("a"), *ending()[:1]], None, id="ended after the finish reason"),
        pytest.param([chunk("a"), chunk("b")[:40]], None, id="ended inside an event"),
    ],
)
async def test_a_broken_stream_says_so(
    gateway: TestGateway, upstream: Upstream, writes: list[bytes], then: Any
) -> None:
    """An error event that the SDK raises on, no `[DONE]`, and a row that says it too."""
    upstream.answer(streams(*writes, then=then, pause_seconds=0.01))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert b"[DONE]" not in raw
    assert raw.startswith(chunk("a"))
    (error,) = errors_in(raw)
    assert error["code"] == "stream_broken"
    assert set(error) >= {"message", "type", "param", "code"}
    row = await gateway.row()
    assert row.status is RequestStatus.STREAM_BROKEN
    assert row.usage_source is UsageSource.ESTIMATED
    assert row.input_tokens.value == 1
    upstream.answer(streams(*writes, then=then, pause_seconds=0.01))
    with pytest.raises(openai.APIError):
        await read_by_the_sdk(gateway)


async def test_tools_and_their_calls_count_in_what_is_estimated(gateway: TestGateway, upstream: Upstream) -> None:
    """Of an agent's request they are most, and billed like the rest."""
    tools = [{"type": "function", "function": {"name": "look", "description": "d" * 4000}}]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "a" * 2000}}
    history = [
        *STREAMED["messages"],
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "r" * 400},
    ]
    upstream.answer(streams(chunk("a"), then=cut, pause_seconds=0.01))
    await gateway.raw_chat({**STREAMED, "messages": history, "tools": tools})
    row = await gateway.row()
    assert row.usage_source is UsageSource.ESTIMATED
    assert row.input_tokens.value == (len("Hello" + "look") + 2000 + 400 + len(json.dumps(tools))) // 4


async def test_usage_of_a_broken_stream_is_kept_when_it_came(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("a"), *ending()[:2], then=cut, pause_seconds=0.01))
    await gateway.raw_chat(STREAMED)
    row = await gateway.row()
    assert row.status is RequestStatus.STREAM_BROKEN
    assert row.usage_source is UsageSource.REPORTED
    assert row.output_tokens.value == 5


async def test_usage_so_far_is_not_that_of_a_broken_stream(gateway: TestGateway, upstream: Upstream) -> None:
    """Some servers tell of the prompt first, or count up with each chunk."""
    begun = {"prompt_tokens": 1000, "completion_tokens": 0}
    upstream.answer(streams(chunk("a" * 4, usage=begun), *[chunk("word" * 500)] * 3, then=cut, pause_seconds=0.01))
    await gateway.raw_chat(STREAMED)
    row = await gateway.row()
    assert (row.status, row.usage_source) == (RequestStatus.STREAM_BROKEN, UsageSource.ESTIMATED)
    assert (row.input_tokens.value, row.output_tokens.value) == (1000, 1501)


async def test_a_cost_is_told_only_when_it_is_known(gateway: TestGateway, upstream: Upstream) -> None:
    """Not that of what had come when the answer began."""
    usages = [{"prompt_tokens": 1000, "completion_tokens": count} for count in (1, 500, 1000)]
    finish = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    events = [*(chunk("a", usage=usage) for usage in usages), chunk(choices=finish, usage=usages[-1])]
    upstream.answer(streams(*events, b"data: [DONE]\n\n", pause_seconds=0.05))
    _, headers, _ = await gateway.raw_chat(STREAMED)
    assert "x-gateway-cost-usd" not in headers
    row = await gateway.row()
    assert (row.usage_source, row.output_tokens.value) == (UsageSource.REPORTED, 1000)
    upstream.answer(streams(b"".join(events) + b"data: [DONE]\n\n"))
    _, headers, _ = await gateway.raw_chat(STREAMED)
    assert row.cost() == CostAmount(Decimal(headers["x-gateway-cost-usd"]))


async def test_a_stalled_stream_ends_by_the_idle_time_out(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(stream_idle_timeout_seconds=0.2)
    upstream.answer(streams(chunk("a"), then=stall))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw.startswith(chunk("a"))
    assert "0.2 s" in errors_in(raw)[0]["message"]
    row = await gateway.row()
    assert (row.status, row.error_type) == (RequestStatus.STREAM_BROKEN, "stream_timeout")
    async with asyncio.timeout(5):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.01)


async def test_a_stream_that_never_ends_is_ended(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(stream_total_timeout_seconds=0.3)

    async def endless(request: web.Request) -> web.StreamResponse:
        return await streams(*(chunk("tick") for _ in range(10_000)), pause_seconds=0.01)(request)

    upstream.answer(endless)
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert "did not finish" in errors_in(raw)[0]["message"]
    assert b"[DONE]" not in raw


async def test_a_client_is_not_kept_waiting_after_done(gateway: TestGateway, upstream: Upstream) -> None:
    """An upstream that does not hang up after `[DONE]` is hung up on."""
    sent = [chunk("a"), *ending()]
    upstream.answer(streams(*sent, then=stall))
    async with asyncio.timeout(10):
        _, _, raw = await gateway.raw_chat(STREAMED)
    assert raw == b"".join(sent)
    assert (await gateway.row()).status is RequestStatus.SUCCESS


async def test_nor_by_what_goes_on_coming(gateway: TestGateway, upstream: Upstream) -> None:
    """Comments, say, of who keeps the connection alive; OpenAI's SDK reads to the end."""

    async def beats(request: web.Request) -> None:
        assert request.transport is not None
        while True:
            request.transport.write(b"6\r\n: ok\n\n\r\n")
            await asyncio.sleep(0.05)

    upstream.answer(streams(chunk("Hi"), *ending(), then=beats))
    async with asyncio.timeout(20):
        _, _, got = await gateway.raw_chat(STREAMED)
    assert got.startswith(chunk("Hi") + b"".join(ending()))
    assert set(got.removeprefix(chunk("Hi") + b"".join(ending())).split(b"\n\n")) <= {b": ok", b""}
    assert (await gateway.row()).status is RequestStatus.SUCCESS
    async with asyncio.timeout(10):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("tail", [b"\n", b": bye", b"data: "])
@pytest.mark.parametrize("is_alone", [True, False])
async def test_what_follows_done_and_ends_no_event_ends_with_the_answer(
    gateway: TestGateway, upstream: Upstream, tail: bytes, is_alone: bool
) -> None:
    """Also where the upstream is then hung up on."""
    *events, done = [chunk("a"), *ending()]
    upstream.answer(streams(*events, *([done, tail] if is_alone else [done + tail]), then=stall))
    for _ in range(2):
        async with asyncio.timeout(10):
            status, _, raw = await gateway.raw_chat(STREAMED)
        assert (status, raw) == (200, b"".join([*events, done, tail]))
    assert {row.status for row in await gateway.rows(2)} == {RequestStatus.SUCCESS}


@pytest.mark.parametrize("writes", [[chunk("a"), *ending()], [b"".join([chunk("a"), *ending()])]], ids=["many", "one"])
async def test_what_completes_an_answer_does_not_wait_for_the_upstream_to_hang_up(
    gateway: TestGateway, upstream: Upstream, writes: list[bytes]
) -> None:
    """Its last bytes leave with the end of the stream where that is known already, and at once where it is not."""
    may_go_on = asyncio.Event()

    async def lingers(_request: web.Request) -> None:
        await may_go_on.wait()

    upstream.answer(streams(*writes, then=lingers))
    async with asyncio.timeout(10), gateway.http.post(gateway.url / "v1/chat/completions", json=STREAMED) as response:
        assert response.status == 200
        came = b""
        while b"[DONE]" not in came:
            came += await response.content.readany()
        assert not response.content.at_eof()
        may_go_on.set()
        came += await response.read()
    assert came == b"".join(writes)


async def test_comments_are_sent_on_when_the_first_token_takes_long(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    """They keep the client's connection alive; only errors within the hold are plain HTTP errors."""
    gateway = await start_gateway(stream_hold_seconds=0.05)
    first_token = asyncio.Event()

    async def thinking(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": OPENROUTER PROCESSING\n\n")
        await first_token.wait()
        for event in [chunk("a"), *ending()]:
            await response.write(event)
        return response

    upstream.answer(thinking)
    async with gateway.http.post(gateway.url / "v1/chat/completions", json=STREAMED) as response:
        assert await response.content.readany() == b": OPENROUTER PROCESSING\n\n"
        first_token.set()
        assert await response.content.read() == b"".join([chunk("a"), *ending()])


async def test_a_stream_that_begins_with_an_error_is_retried(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(FakeTime().timing())
    error = b'data: {"error":{"code":503,"message":"overloaded"}}\n\n'
    upstream.answer(streams(error), streams(chunk("a"), *ending()))
    status, headers, raw = await gateway.raw_chat(STREAMED)
    assert status == 200
    assert raw == b"".join([chunk("a"), *ending()])
    assert headers["x-gateway-attempts"] == "2"


async def test_nothing_is_retried_after_the_first_byte(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(FakeTime().timing())
    upstream.answer(streams(chunk("a"), then=cut, pause_seconds=0.01), streams(chunk("b"), *ending()))
    _, _, raw = await gateway.raw_chat(STREAMED)
    assert upstream.calls == 1
    assert errors_in(raw)


@pytest.mark.parametrize("streamed", [True, False], ids=["before the first chunk", "plain"])
async def test_a_client_that_hangs_up_while_waiting_ends_the_upstream_call(
    gateway: TestGateway, upstream: Upstream, streamed: bool
) -> None:
    upstream.answer(_never_answers)
    call = asyncio.create_task(gateway.raw_chat({**HELLO, "stream": streamed}))
    await _until(lambda: upstream.calls == 1)
    call.cancel()
    await _until(lambda: upstream.cancelled == 1)
    row = await gateway.row()
    assert row.status is RequestStatus.CLIENT_DISCONNECTED
    assert row.usage_source is UsageSource.NONE
    assert row.attempts == 1


async def test_a_plain_answer_that_is_left_can_still_be_asked_for(gateway: TestGateway, upstream: Upstream) -> None:
    """The headers have told its id, though the body never came."""

    async def begins(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "X-Generation-Id": "gen-7"})
        await response.prepare(request)
        await response.write(b" ")
        await stall(request)
        return response

    upstream.answer(begins)
    call = asyncio.create_task(gateway.raw_chat())
    await _until(lambda: upstream.calls == 1)
    await asyncio.sleep(0.2)
    call.cancel()
    row = await gateway.row()
    assert (row.status, row.generation_id) == (RequestStatus.CLIENT_DISCONNECTED, "gen-7")


async def test_a_client_that_hangs_up_in_mid_stream_ends_the_upstream_call(
    gateway: TestGateway, upstream: Upstream
) -> None:
    upstream.answer(streams(chunk("some words, "), chunk("and more"), then=stall))
    response = await gateway.http.post(gateway.url / "v1/chat/completions", json=STREAMED)
    await response.content.readany()
    response.close()
    await _until(lambda: upstream.cancelled == 1)
    row = await gateway.row()
    assert row.status is RequestStatus.CLIENT_DISCONNECTED
    assert row.usage_source is UsageSource.ESTIMATED
    assert row.output_tokens.value >= 3
    assert row.cost_source is CostSource.COMPUTED


async def test_a_client_that_hangs_up_while_the_upstream_talks_ends_the_call(
    gateway: TestGateway, upstream: Upstream
) -> None:
    async def talkative(request: web.Request) -> web.StreamResponse:
        return await streams(*(chunk("word ") for _ in range(100_000)), pause_seconds=0.001)(request)

    upstream.answer(talkative)
    response = await gateway.http.post(gateway.url / "v1/chat/completions", json=STREAMED)
    await response.content.readany()
    response.close()
    await _until(lambda: upstream.cancelled == 1)
    assert (await gateway.row()).status is RequestStatus.CLIENT_DISCONNECTED


async def test_a_slow_reader_slows_the_upstream_down(gateway: TestGateway, upstream: Upstream) -> None:
    """What the client does not read waits at the upstream, not in the gateway's memory."""
    written = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        event = chunk("x" * 10_000)
        for _ in range(10_000):  # 100 MB in all
            await response.write(event)
            written += len(event)
        return response

    upstream.answer(flood)
    body = json.dumps(STREAMED).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (gateway.url.host, gateway.url.port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        await loop.sock_sendall(client, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        seen = -1
        while written != seen:  # until nothing moves any more
            seen = written
            await asyncio.sleep(0.3)
        assert 0 < written < 20_000_000
    await _until(lambda: upstream.cancelled == 1)


async def test_a_reader_that_pauses_gets_all_of_it(gateway: TestGateway, upstream: Upstream) -> None:
    """The upstream's connection is held while the client does not read, and let go again, over and over."""
    events = [chunk(f"{number} " + "x" * 10_000) for number in range(2000)]  # 20 MB: no kernel holds that
    upstream.answer(streams(*events, *ending()))
    async with gateway.http.post(gateway.url / "v1/chat/completions", json=STREAMED) as response:
        got = b""
        while data := await response.content.read(4_000_000):
            await asyncio.sleep(0.1)
            got += data
    assert got.startswith(b"".join(events))
    assert got.endswith(b"data: [DONE]\n\n")
    assert (await gateway.row()).status is RequestStatus.SUCCESS


async def _never_answers(request: web.Request) -> web.StreamResponse:
    await stall(request)
    raise AssertionError


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
