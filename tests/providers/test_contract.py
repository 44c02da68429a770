"""What every kind of provider must do, asked of all of them over upstreams that speak their dialects."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory

from proxy.domain.errors import (
    CircuitOpen,
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    StreamBroken,
    TransientUpstreamError,
)
from proxy.infrastructure.chat_completion.registry import KINDS as REGISTERED
from tests.harness import Answering, cut, stall
from tests.providers.all_kinds import KINDS
from tests.providers.conftest import HELLO, MODEL, Connect, Provider, Streamed, is_last
from tests.providers.kinds import API_KEY, INPUT_TOKENS, OUTPUT_TOKENS, TOOL_CALL
from tests.providers.openai_upstreams import never

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def test_every_registered_kind_is_tested_here() -> None:
    assert {kind.in_registry for kind in KINDS} == set(REGISTERED)


async def test_an_answer_comes_back_with_its_usage(provider: Provider) -> None:
    body, metadata = await provider.complete()
    answer = json.loads(body)
    assert answer["choices"][0]["message"]["content"] == "Hi there!"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == INPUT_TOKENS + OUTPUT_TOKENS
    assert (metadata["input_tokens"], metadata["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert metadata["content_type"] == "application/json"


async def test_an_answer_without_end_is_given_up(connect_kind: Connect, provider: Provider) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    limited = await connect_kind(provider.kind, max_answer_bytes=1024 * 1024)
    limited.upstream.answer(endless)
    with pytest.raises(InvalidUpstreamAnswer, match=r"1048576 bytes \(MAX_ANSWER_BYTES\)"):
        await limited.complete()
    await limited.hung_up()
    assert limited.upstream.calls == 1


async def test_the_upstream_is_asked_what_the_client_asked(provider: Provider) -> None:
    await provider.complete({**HELLO, "messages": [{"role": "user", "content": "Dobrý den 😀"}]})
    asked = provider.asked()
    assert asked.model == MODEL
    assert asked.texts == ("Dobrý den 😀",)


async def test_the_key_goes_where_the_provider_expects_it_and_no_header_of_the_clients_with_it(
    provider: Provider,
) -> None:
    await provider.complete(Authorization="Bearer of-the-client", Cookie="a=b", traceparent="00-1-2-3")
    got = {name.lower(): value for name, value in provider.upstream.headers[0].items()}
    name, value = provider.kind.key_header
    assert got[name.lower()] == value
    assert "of-the-client" not in str(got)
    assert "cookie" not in got


async def test_a_stream_is_chunks_with_text_usage_at_the_end_and_done(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.streams(["Hel", "lo, ", "světe"]))
    streamed = await provider.stream()
    assert streamed.text == "Hello, světe"
    assert streamed.finish_reasons == ["stop"]
    assert streamed.data.rstrip().endswith(b"data: [DONE]")
    last = streamed.metadata[-1]
    assert [is_last(metadata) for metadata in streamed.metadata].count(True) == 1
    assert is_last(last)
    assert (last["input_tokens"], last["output_tokens"]) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert streamed.metadata[0]["content_type"] == "text/event-stream"


async def test_a_client_that_asks_for_usage_in_a_stream_sees_it(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.streams(["a"]))
    asking = {**HELLO, "stream_options": {"include_usage": True}}
    if not provider.kind.takes_stream_options:
        with pytest.raises(PermanentUpstreamError, match=r"stream_options\.include_usage: Extra inputs"):
            await provider.stream(asking)
        return
    streamed = await provider.stream(asking)
    told = [chunk["usage"] for chunk in streamed.chunks if chunk.get("usage")]
    assert [usage["total_tokens"] for usage in told] == [INPUT_TOKENS + OUTPUT_TOKENS]


async def test_tools_are_offered_and_called(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.calls_tool())
    body, _ = await provider.complete({**HELLO, "tools": TOOLS})
    assert provider.asked().tools == ("get_weather",)
    choice = json.loads(body)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert call["type"] == "function"
    arguments = json.loads(call["function"]["arguments"])
    assert (call["id"], call["function"]["name"], arguments) == (*TOOL_CALL[:2], json.loads(TOOL_CALL[2]))


async def test_a_tools_result_goes_back(provider: Provider) -> None:
    call_id, name, arguments = TOOL_CALL
    called = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Weather in Brno?"},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": call_id, "content": "rain"},
    ]
    await provider.complete({**HELLO, "messages": messages, "tools": TOOLS})
    assert provider.asked().tool_results == ((call_id, "rain"),)


async def test_fragments_of_a_tool_call_add_up(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.streams_tool_call())
    streamed = await provider.stream({**HELLO, "tools": TOOLS})
    deltas = [choice["delta"] for chunk in streamed.chunks for choice in chunk["choices"]]
    fragments = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert {fragment["index"] for fragment in fragments} == {0}
    named = [(f["id"], f["function"]["name"]) for f in fragments if f.get("id")]
    assert named == [TOOL_CALL[:2]]
    assert json.loads("".join(f["function"].get("arguments") or "" for f in fragments)) == json.loads(TOOL_CALL[2])
    assert streamed.finish_reasons == ["tool_calls"]


async def test_any_semantic_kernel_program_can_use_it(provider: Provider) -> None:
    history = ChatHistory()
    history.add_user_message("Hello")
    settings = PromptExecutionSettings(extension_data={"max_tokens": 100})
    (content,) = await provider.service.get_chat_message_contents(history, settings)
    assert content.content == "Hi there!"
    provider.upstream.answer(provider.kind.streams(["Hel", "lo"]))
    answer = provider.service.get_streaming_chat_message_contents(history, settings)
    assert "".join([content.content async for (content, *_) in answer]) == "Hello"
    assert provider.asked().model == MODEL


# Errors


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_refusal_keeps_its_status_and_words_and_is_not_repeated(provider: Provider, status: int) -> None:
    provider.upstream.answer(provider.kind.fails(status, "no such thing"))
    with pytest.raises(PermanentUpstreamError) as caught:
        await provider.complete()
    assert (caught.value.status, caught.value.kind, caught.value.provider) == (status, f"http_{status}", "Acme")
    assert "no such thing" in str(caught.value)
    assert not caught.value.is_context_window
    assert not caught.value.is_content_policy
    assert provider.upstream.calls == 1


async def test_an_error_never_shows_the_key(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.fails(401, f"bad key {API_KEY}"))
    with pytest.raises(PermanentUpstreamError) as caught:
        await provider.complete()
    assert caught.value.status == 401
    assert API_KEY not in str(caught.value) + str(caught.value.details)


async def test_an_error_before_a_stream_begins_is_like_any_other(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.fails(403, "not for you"))
    with pytest.raises(PermanentUpstreamError, match="not for you") as caught:
        await provider.stream()
    assert caught.value.status == 403


async def test_a_prompt_that_is_too_long_is_known_as_such(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.too_long)
    with pytest.raises(PermanentUpstreamError) as caught:
        await provider.complete()
    assert caught.value.is_context_window
    assert not caught.value.is_content_policy


async def test_a_prompt_that_a_policy_refuses_is_known_as_such(provider: Provider) -> None:
    if provider.kind.refused is None:
        return
    provider.upstream.answer(provider.kind.refused)
    with pytest.raises(PermanentUpstreamError) as caught:
        await provider.complete()
    assert caught.value.is_content_policy
    assert not caught.value.is_context_window


# Retries and the breaker


@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_outages_and_rate_limits_are_tried_again(provider: Provider, status: int) -> None:
    kind = provider.kind
    provider.upstream.answer(kind.fails(status, "later"), kind.fails(status, "later"), kind.answers("At last"))
    body, _ = await provider.complete()
    assert "At last" in body.decode()
    assert provider.upstream.calls == 3
    assert provider.time.waits == [1.0, 2.0]


async def test_a_stream_is_tried_again_until_it_begins(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.fails(503, "later"), provider.kind.streams(["ok"]))
    assert (await provider.stream()).text == "ok"
    assert provider.upstream.calls == 2


async def test_an_outage_opens_the_breaker_and_then_nobody_is_asked(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.fails(500, "broken"))
    for _ in range(5):
        with pytest.raises(TransientUpstreamError):
            await provider.complete()
    asked = provider.upstream.calls
    assert asked == 20
    with pytest.raises(CircuitOpen):
        await provider.complete()
    assert provider.upstream.calls == asked


async def test_refusals_leave_the_breaker_closed(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.fails(400, "no"))
    for _ in range(6):
        with pytest.raises(PermanentUpstreamError):
            await provider.complete()
    assert provider.breaker.state == "closed"


async def test_an_upstream_that_is_not_there_is_a_transient_error_and_generates_nothing(connect_kind: Connect) -> None:
    for kind in KINDS:
        provider = await connect_kind(kind, base_url="http://127.0.0.1:9")
        call, history, settings = provider.call()
        with pytest.raises(TransientUpstreamError) as caught:
            await provider.service.get_chat_message_contents(history, settings)
        assert (caught.value.kind, caught.value.provider) == ("connection", "Acme"), kind.name
        assert not call.may_have_generated, kind.name


async def test_an_upstream_that_says_nothing_times_out(connect_kind: Connect) -> None:
    for kind in KINDS:
        for limit, asked in (("answer", "complete"), ("first_byte", "stream")):
            provider = await connect_kind(kind, **{f"{limit}_timeout_seconds": 0.05})
            provider.upstream.answer(never)
            with pytest.raises(TransientUpstreamError) as caught:
                await getattr(provider, asked)()
            assert caught.value.kind == "timeout", (kind.name, asked)
            assert "did not begin to answer within 0.05 s" in str(caught.value)


async def test_a_whole_answer_may_take_longer_to_begin_than_a_stream_and_than_it_may_pause(
    connect_kind: Connect,
) -> None:
    patience = {"first_byte_timeout_seconds": 0.05, "idle_timeout_seconds": 0.05, "answer_timeout_seconds": 30}
    for kind in KINDS:
        provider = await connect_kind(kind, **patience)
        answers = kind.answers("Hello")

        async def late(request: web.Request, answers: Answering = answers) -> web.StreamResponse:
            await asyncio.sleep(0.2)
            return await answers(request)

        provider.upstream.answer(late)
        await provider.complete()
        assert provider.upstream.calls == 1, kind.name


# Streams that end badly


async def test_a_cut_stream_is_broken_and_what_came_is_kept(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.breaks_off(["Hel", "lo"], cut))
    streamed = Streamed()
    with pytest.raises(StreamBroken) as caught:
        await provider.stream(into=streamed)
    assert "Hello".startswith(streamed.text)
    assert b"[DONE]" not in streamed.data
    assert caught.value.provider == "Acme"
    assert not any(is_last(metadata) for metadata in streamed.metadata)


async def test_hanging_up_ends_the_upstreams_stream(provider: Provider) -> None:
    provider.upstream.answer(provider.kind.breaks_off(["Hel"], stall))
    call, history, settings = provider.call({**HELLO, "stream": True})
    answer = provider.service.get_streaming_chat_message_contents(history, settings)
    await anext(answer)
    call.hang_up()
    await provider.hung_up()
    await answer.aclose()


async def test_giving_up_on_an_answer_ends_the_upstreams_call(provider: Provider) -> None:
    provider.upstream.answer(never)
    task = asyncio.create_task(provider.complete())
    async with asyncio.timeout(10):
        while not provider.upstream.calls:
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await provider.hung_up()
    assert provider.breaker.state == "closed"
