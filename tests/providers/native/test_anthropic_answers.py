"""What becomes of Anthropic's answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import Usage
from proxy.domain.errors import (
    DeadlineExceeded,
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    StreamBroken,
    TransientUpstreamError,
)
from tests.harness import says, stall, streams
from tests.providers.anthropic_upstream import (
    ANTHROPIC,
    PING,
    block,
    end,
    error,
    message,
    sse,
    start,
    streaming,
    text,
    text_block,
    tool_block,
)
from tests.providers.conftest import HELLO, Connect, Provider, Streamed, is_last
from tests.providers.kinds import INPUT_TOKENS

CACHED_USAGE = {
    "input_tokens": 3,
    "cache_read_input_tokens": 20,
    "cache_creation_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 2},
}
SAME_USAGE = Usage(
    input_tokens=123,
    output_tokens=7,
    cached_tokens=20,
    cache_write_tokens=100,
    cache_write_1h_tokens=40,
    reasoning_tokens=2,
)
TOLD_USAGE = {
    "prompt_tokens": 123,
    "completion_tokens": 7,
    "total_tokens": 130,
    "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 100, "cache_write_1h_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
ASKING_FOR_USAGE = {**HELLO, "stream_options": {"include_usage": True}}
FINISH_REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("refusal", "content_filter"),
]


def error_event(kind: str, words: str) -> bytes:
    return sse("error", error={"type": kind, "message": words})


def ending(usage: Any) -> list[bytes]:
    """A stream's last events, with that for its usage."""
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return [sse("message_delta", delta=delta, usage=usage), sse("message_stop")]


def data_of(content: Any) -> bytes:
    """What goes to the client."""
    data: bytes = content.inner_content
    return data


async def completed(provider: Provider, call: UpstreamCall, history: Any, settings: Any) -> dict[str, Any]:
    (content,) = await provider.service.get_chat_message_contents(history, settings)
    answer: dict[str, Any] = json.loads(data_of(content))
    return answer


async def test_an_answer_is_as_openai_would_give_it(anthropic: Provider) -> None:
    headers = {"request-id": "req_1", "anthropic-ratelimit-tokens-remaining": "5", "set-cookie": "a=b"}
    anthropic.upstream.answer(message(text("Hi "), text("there!"), usage=CACHED_USAGE, headers=headers))
    call, history, settings = anthropic.call()
    (content,) = await anthropic.service.get_chat_message_contents(history, settings)
    answer = json.loads(data_of(content))
    assert abs(answer.pop("created")) > 1_700_000_000
    assert answer == {
        "id": "msg_1",
        "object": "chat.completion",
        "model": "served-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi there!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": TOLD_USAGE,
    }
    assert content.metadata["headers"] == {"request-id": "req_1", "anthropic-ratelimit-tokens-remaining": "5"}
    assert (call.attempts, call.refusals, call.generation_id) == (1, 0, "msg_1")
    assert call.upstream_seconds > 0
    assert (call.answer.facts().usage, call.answer.facts().model) == (SAME_USAGE, "served-model")


@pytest.mark.parametrize(("served", "tier"), [("priority", "priority"), ("standard", None), (None, None), (5, None)])
async def test_the_service_tier_is_the_one_that_served(anthropic: Provider, served: Any, tier: str | None) -> None:
    usage = {**CACHED_USAGE, "service_tier": served}
    anthropic.upstream.answer(message(text("Hi"), usage=usage))
    call, history, settings = anthropic.call()
    (whole,) = await anthropic.service.get_chat_message_contents(history, settings)
    assert json.loads(data_of(whole)).get("service_tier") == tier
    assert call.answer.facts().usage == SAME_USAGE._replace(service_tier=tier)
    anthropic.upstream.answer(streaming(start(usage), *text_block(0, ["Hi"]), *ending(CACHED_USAGE)))
    streamed = await anthropic.stream(ASKING_FOR_USAGE)
    assert streamed.chunks[-1].get("service_tier") == tier


@pytest.mark.parametrize(("stop_reason", "finish_reason"), FINISH_REASONS)
async def test_why_an_answer_ended(anthropic: Provider, stop_reason: str, finish_reason: str) -> None:
    anthropic.upstream.answer(message(text("a"), stop_reason=stop_reason))
    body, _ = await anthropic.complete()
    assert json.loads(body)["choices"][0]["finish_reason"] == finish_reason


@pytest.mark.parametrize(("stop_reason", "finish_reason"), FINISH_REASONS)
async def test_why_a_stream_ended(anthropic: Provider, stop_reason: str, finish_reason: str) -> None:
    anthropic.upstream.answer(streaming(start(), *text_block(0, ["a"]), *end(stop_reason)))
    streamed = await anthropic.stream()
    assert streamed.chunks[-1]["choices"][0]["finish_reason"] == finish_reason


async def test_an_answer_of_nothing_but_tool_calls(anthropic: Provider) -> None:
    calls = [{"type": "tool_use", "id": call, "name": "f-g", "input": {"é": [None, 1.5]}} for call in ("a", "b")]
    anthropic.upstream.answer(message(*calls, stop_reason="tool_use"))
    body, _ = await anthropic.complete()
    choice = json.loads(body)["choices"][0]
    assert choice["message"]["content"] is None
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["a", "b"]
    function = choice["message"]["tool_calls"][1]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("f-g", {"é": [None, 1.5]})


async def test_a_stream_with_reasoning_text_and_parallel_calls(anthropic: Provider) -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "H"},
        {"type": "thinking_delta", "thinking": "m."},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    hidden = block(1, {"type": "redacted_thinking", "data": "ZGF0YQ=="})
    anthropic.upstream.answer(
        streaming(
            start(CACHED_USAGE),
            PING,
            *thinking,
            *hidden,
            *text_block(2, ["Look", "ing."]),
            *tool_block(3, "a", "get_weather", ["", '{"city"', ': "Brno"}']),
            *tool_block(4, "b", "get_time", [""]),
            *end("tool_use", output_tokens=7),
        )
    )
    call, history, settings = anthropic.call({**ASKING_FOR_USAGE, "stream": True})
    streamed = Streamed()
    async for (content,) in anthropic.service.get_streaming_chat_message_contents(history, settings):
        streamed.data += data_of(content)
        streamed.metadata.append(content.metadata)
    deltas = [choice["delta"] for chunk in streamed.chunks for choice in chunk["choices"]]
    assert [delta["role"] for delta in deltas if "role" in delta] == ["assistant"]
    assert "role" in deltas[0]
    assert streamed.text == "Looking."
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm."
    details = [detail for delta in deltas for detail in delta.get("reasoning_details", ())]
    assert [(d["index"], d["type"]) for d in details] == [(0, "reasoning.text")] * 3 + [(1, "reasoning.encrypted")]
    assert [detail.get("signature") for detail in details] == [None, None, "c2ln", None]
    assert details[3]["data"] == "ZGF0YQ=="
    fragments = [fragment for delta in deltas for fragment in delta.get("tool_calls", ())]
    assert [(f["index"], f["id"], f["function"]["name"]) for f in fragments if "id" in f] == [
        (0, "a", "get_weather"),
        (1, "b", "get_time"),
    ]
    for index, arguments in ((0, {"city": "Brno"}), (1, {})):
        assert json.loads("".join(f["function"]["arguments"] for f in fragments if f["index"] == index)) == arguments
    *_, finish, last = streamed.chunks
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert (last["choices"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == ([], 123, 7)
    assert {chunk["id"] for chunk in streamed.chunks} == {"msg_1"}
    assert {chunk["model"] for chunk in streamed.chunks} == {"served-model"}
    facts = call.answer.facts()
    assert facts.usage is not None
    assert (facts.usage.cached_tokens, facts.usage.cache_write_tokens, facts.finish_reason) == (20, 100, "tool_calls")
    assert (call.attempts, call.generation_id) == (1, "msg_1")


async def test_usage_in_a_stream_is_for_those_who_ask_and_for_the_books(anthropic: Provider) -> None:
    anthropic.upstream.answer(ANTHROPIC.streams(["a"]))
    streamed = await anthropic.stream()
    assert not any("usage" in chunk for chunk in streamed.chunks)
    assert streamed.metadata[-1]["input_tokens"] == 10


@pytest.mark.parametrize(
    "odd",
    [
        {"input_tokens": -1},
        {"output_tokens": -5},
        {"output_tokens": 10.5},
        {"output_tokens": [1]},
        {"output_tokens": 2**64 - 1},
        {"output_tokens": None},
    ],
    ids=str,
)
async def test_usage_that_makes_no_sense_is_no_usage(anthropic: Provider, odd: dict[str, Any]) -> None:
    """Nor are the tokens that a stream begins with those of its answer."""
    anthropic.upstream.answer(message(text("Hi"), usage={**CACHED_USAGE, **odd}))
    body, metadata = await anthropic.complete()
    assert "usage" not in json.loads(body)
    assert "output_tokens" not in metadata
    anthropic.upstream.answer(streaming(start(CACHED_USAGE), *text_block(0, ["Hi"]), *ending(CACHED_USAGE | odd)))
    streamed = await anthropic.stream(ASKING_FOR_USAGE)
    assert (streamed.text, streamed.chunks[-1]["choices"][0]["finish_reason"]) == ("Hi", "stop")
    assert "output_tokens" not in streamed.metadata[-1]


@pytest.mark.parametrize("usage", [None, [1], "much", 5, {}], ids=str)
async def test_what_is_no_usage_at_all_breaks_no_answer(anthropic: Provider, usage: Any) -> None:
    answer = {"id": "msg_1", "type": "message", "content": [text("Hi")], "stop_reason": "end_turn", "usage": usage}
    anthropic.upstream.answer(says(answer))
    body, metadata = await anthropic.complete()
    assert "usage" not in json.loads(body)
    assert "output_tokens" not in metadata
    anthropic.upstream.answer(streaming(start(), *text_block(0, ["Hi"]), *ending(usage)))
    streamed = await anthropic.stream()
    assert streamed.text == "Hi"
    assert "output_tokens" not in streamed.metadata[-1]


@pytest.mark.parametrize(
    ("odd", "input_tokens", "cached", "thinking"),
    [
        ({"cache_read_input_tokens": -5}, 103, None, 2),
        ({"cache_read_input_tokens": 10.5}, 103, None, 2),
        ({"output_tokens_details": {"thinking_tokens": -1}}, 123, 20, None),
        ({"output_tokens_details": [1]}, 123, 20, None),
    ],
    ids=str,
)
async def test_a_count_that_makes_no_sense_leaves_the_others(
    anthropic: Provider, odd: dict[str, Any], input_tokens: int, cached: int | None, thinking: int | None
) -> None:
    usage = {**CACHED_USAGE, **odd}
    anthropic.upstream.answer(message(text("Hi"), usage=usage))
    _, whole = await anthropic.complete()
    anthropic.upstream.answer(streaming(start(usage), *text_block(0, ["Hi"]), *ending(usage)))
    for told in (whole, (await anthropic.stream()).metadata[-1]):
        counts = [told[f"{kind}_tokens"] for kind in ("input", "output", "cached", "reasoning")]
        assert counts == [input_tokens, 7, cached, thinking]


async def test_names_that_are_none_are_not_kept(anthropic: Provider) -> None:
    begun = {"id": 5, "type": "message", "role": "assistant", "model": ["m"], "content": [], "usage": CACHED_USAGE}
    anthropic.upstream.answer(streaming(sse("message_start", message=begun), *text_block(0, ["Hi"]), *end()))
    streamed = await anthropic.stream()
    assert (streamed.text, streamed.metadata[-1]["generation_id"]) == ("Hi", None)
    assert {chunk["model"] for chunk in streamed.chunks} == {"asked-model"}


async def test_fragments_of_bytes_make_no_difference(anthropic: Provider) -> None:
    whole = b"".join([start(), *text_block(0, ["Dobrý ", "den 😀"]), *end()])
    anthropic.upstream.answer(streams(*(whole[i : i + 7] for i in range(0, len(whole), 7)), generation_header=None))
    assert (await anthropic.stream()).text == "Dobrý den 😀"


# Beginning


async def test_an_overload_before_the_first_word_is_tried_again(anthropic: Provider) -> None:
    overloaded = streaming(start(), PING, error_event("overloaded_error", "Overloaded"))
    anthropic.upstream.answer(overloaded, ANTHROPIC.streams(["ok"]))
    assert (await anthropic.stream()).text == "ok"
    assert anthropic.upstream.calls == 2


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("overloaded_error", 529, TransientUpstreamError),
        ("rate_limit_error", 429, TransientUpstreamError),
        ("api_error", 500, TransientUpstreamError),
        ("unheard_of", 500, TransientUpstreamError),
        ("invalid_request_error", 400, PermanentUpstreamError),
    ],
)
async def test_an_error_event_has_the_status_of_its_type(
    anthropic: Provider, kind: str, status: int, expected: type[Exception]
) -> None:
    anthropic.upstream.answer(streaming(start(), error_event(kind, "no")))
    with pytest.raises(expected) as caught:
        await anthropic.stream()
    assert caught.value.status == status  # type: ignore[attr-defined]
    assert "no" in str(caught.value)


async def test_a_stream_that_thinks_for_long_begins_anyway(connect_kind: Connect) -> None:
    provider = await connect_kind(ANTHROPIC, stream_hold_seconds=0.01)
    go_on = asyncio.Event()

    async def thinks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(start() + PING)
        await go_on.wait()
        await response.write(b"".join([*text_block(0, ["At last"]), *end()]))
        return response

    provider.upstream.answer(thinks)
    _, history, settings = provider.call({**HELLO, "stream": True})
    contents = provider.service.get_streaming_chat_message_contents(history, settings)
    (opening,) = await anext(contents)
    assert json.loads(data_of(opening)[6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert opening.metadata["content_type"] == "text/event-stream"
    go_on.set()
    rest = Streamed(b"".join([data_of(content) async for (content,) in contents]))
    assert rest.text == "At last"
    assert rest.data.endswith(b"data: [DONE]\n\n")


async def test_an_error_after_a_held_beginning_breaks_the_stream(connect_kind: Connect) -> None:
    provider = await connect_kind(ANTHROPIC, stream_hold_seconds=0.01)
    go_on = asyncio.Event()

    async def fails_late(request: web.Request) -> None:
        await go_on.wait()
        assert request.transport is not None
        request.transport.abort()

    provider.upstream.answer(streaming(start(), PING, then=fails_late))
    _, history, settings = provider.call({**HELLO, "stream": True})
    contents = provider.service.get_streaming_chat_message_contents(history, settings)
    await anext(contents)
    go_on.set()
    with pytest.raises(StreamBroken) as caught:
        await anext(contents)
    assert caught.value.kind == "stream_connection"


# Ending badly


async def test_an_error_in_the_middle_breaks_the_stream_with_the_providers_words(anthropic: Provider) -> None:
    begun = [start(), *text_block(0, ["Hel", "lo"])[:-1]]
    anthropic.upstream.answer(streaming(*begun, error_event("overloaded_error", "Overloaded")))
    streamed = Streamed()
    with pytest.raises(StreamBroken, match="Overloaded") as caught:
        await anthropic.stream(into=streamed)
    assert streamed.text == "Hello"
    assert not caught.value.told  # the client has seen nothing of it
    assert b"[DONE]" not in streamed.data


@pytest.mark.parametrize("kept", [0, 1])
async def test_a_clean_end_before_the_last_event_is_no_end(anthropic: Provider, kept: int) -> None:
    anthropic.upstream.answer(streaming(start(), *text_block(0, ["Hello"]), *end()[:kept]))
    streamed = Streamed()
    with pytest.raises(StreamBroken) as caught:
        await anthropic.stream(into=streamed)
    assert (caught.value.kind, streamed.text) == ("stream_truncated", "Hello")


@pytest.mark.parametrize(("stop_reason", "finish_reason"), FINISH_REASONS)
async def test_a_stream_that_says_nothing_says_why(anthropic: Provider, stop_reason: str, finish_reason: str) -> None:
    """As after some results of tools, and refusals. Nothing of it reached the client."""
    anthropic.upstream.answer(streaming(start(), *end(stop_reason)))
    streamed = await anthropic.stream(ASKING_FOR_USAGE)
    assert (streamed.text, streamed.finish_reasons, is_last(streamed.metadata[-1])) == ("", [finish_reason], True)
    assert streamed.chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert streamed.chunks[-1]["usage"]["prompt_tokens"] == INPUT_TOKENS
    assert streamed.data.endswith(b"data: [DONE]\n\n")


async def test_a_stream_without_any_word_is_an_error_like_any_other(anthropic: Provider) -> None:
    anthropic.upstream.answer(streaming(start()))
    with pytest.raises(InvalidUpstreamAnswer):
        await anthropic.stream()


async def test_a_stream_that_goes_on_for_too_long_is_broken(connect_kind: Connect) -> None:
    provider = await connect_kind(ANTHROPIC, stream_total_timeout_seconds=0.2)
    provider.upstream.answer(streams(start(), *text_block(0, ["a"]), *[PING] * 1000, pause_seconds=0.01))
    streamed = Streamed()
    with pytest.raises(StreamBroken) as caught:
        await provider.stream(into=streamed)
    assert (caught.value.kind, streamed.text) == ("stream_timeout", "a")


async def test_silence_in_the_middle_breaks_the_stream(connect_kind: Connect) -> None:
    provider = await connect_kind(ANTHROPIC, idle_timeout_seconds=0.05)
    provider.upstream.answer(ANTHROPIC.breaks_off(["a"], stall))
    streamed = Streamed()
    with pytest.raises(StreamBroken) as caught:
        await provider.stream(into=streamed)
    assert (caught.value.kind, streamed.text) == ("stream_timeout", "a")


async def test_whoever_has_all_does_not_wait_for_the_upstream_to_hang_up(anthropic: Provider) -> None:
    anthropic.upstream.answer(streaming(start(), *text_block(0, ["all"]), *end(), then=stall))
    streamed = await anthropic.stream()
    assert streamed.text == "all"
    assert is_last(streamed.metadata[-1])
    await anthropic.hung_up()


async def test_what_was_said_before_hanging_up_is_estimated(anthropic: Provider) -> None:
    anthropic.upstream.answer(ANTHROPIC.breaks_off(["Hello, wo", "rld!"], stall))
    call, history, settings = anthropic.call({**HELLO, "stream": True})
    contents = anthropic.service.get_streaming_chat_message_contents(history, settings)
    said = b""
    while b"rld" not in said:
        said += data_of((await anext(contents))[0])
    call.hang_up()
    await contents.aclose()
    await anthropic.hung_up()
    assert call.answer.facts().usage == Usage(INPUT_TOKENS, 3, 0, cache_write_tokens=0, estimated=True)
    assert (call.generation_id, call.may_have_generated) == ("msg_1", True)


async def test_a_stream_that_ends_without_its_usage_has_what_it_began_with(anthropic: Provider) -> None:
    anthropic.upstream.answer(streaming(start(), *text_block(0, ["Hello, world!"]), sse("message_stop")))
    call, history, settings = anthropic.call({**ASKING_FOR_USAGE, "stream": True})
    contents = anthropic.service.get_streaming_chat_message_contents(history, settings)
    said = b"".join([data_of(content) async for (content,) in contents])
    assert b"prompt_tokens" not in said
    assert call.answer.facts().usage == Usage(INPUT_TOKENS, 3, 0, cache_write_tokens=0, estimated=True)


async def test_a_call_counts_with_its_name(anthropic: Provider) -> None:
    anthropic.upstream.answer(
        streaming(start(), *tool_block(0, "a", "get_time", ['{"in":', '"UT"}']), *end("tool_use"))
    )
    call, history, settings = anthropic.call({**HELLO, "stream": True})
    async for _ in anthropic.service.get_streaming_chat_message_contents(history, settings):
        pass
    assert call.answer.estimated_output_tokens() == len('get_time{"in":"UT"}') // 4


# Errors


async def test_a_refused_key_is_a_refusal(anthropic: Provider) -> None:
    anthropic.upstream.answer(says(error(401, "invalid x-api-key"), status=401))
    call, history, settings = anthropic.call()
    with pytest.raises(PermanentUpstreamError) as caught:
        await completed(anthropic, call, history, settings)
    assert caught.value.details["type"] == "authentication_error"
    assert (call.attempts, call.refusals, call.may_have_generated) == (1, 1, False)


async def test_retry_after_is_waited_for(anthropic: Provider) -> None:
    limited = says(error(429, "slow down"), status=429, headers={"retry-after": "7"})
    anthropic.upstream.answer(limited, message(text("ok")))
    await anthropic.complete()
    assert anthropic.time.waits == [7.0]


async def test_a_retry_after_beyond_the_cap_is_handed_on(anthropic: Provider) -> None:
    headers = {"retry-after": "600", "anthropic-ratelimit-requests-remaining": "0"}
    anthropic.upstream.answer(says(error(429, "slow down"), status=429, headers=headers))
    with pytest.raises(TransientUpstreamError) as caught:
        await anthropic.complete()
    assert caught.value.retry_after_seconds == 600
    assert caught.value.headers == {"anthropic-ratelimit-requests-remaining": "0"}
    assert anthropic.upstream.calls == 1


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"type":"message","content":[{"type":"new"}],"usage":{}}']
)
async def test_an_answer_that_is_none_is_an_invalid_answer(anthropic: Provider, body: bytes) -> None:
    anthropic.upstream.answer(says(body))
    with pytest.raises(InvalidUpstreamAnswer):
        await anthropic.complete()
    assert anthropic.upstream.calls == 1


async def test_a_call_has_no_more_attempts_than_are_left_for_it(anthropic: Provider) -> None:
    anthropic.upstream.answer(says(error(529, "Overloaded"), status=529))
    call, history, settings = anthropic.call()
    call.max_attempts = 2
    with pytest.raises(TransientUpstreamError):
        await completed(anthropic, call, history, settings)
    assert call.attempts == anthropic.upstream.calls == 2


async def test_nobody_is_asked_after_the_deadline(anthropic: Provider) -> None:
    call, history, settings = anthropic.call()
    call.deadline = anthropic.time.now
    with pytest.raises(DeadlineExceeded):
        await completed(anthropic, call, history, settings)
    assert anthropic.upstream.calls == 0


async def test_a_connection_serves_one_call_after_the_other(anthropic: Provider) -> None:
    ports = set()

    async def noting(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.add(request.transport.get_extra_info("peername")[1])
        streamed = json.loads(await request.read()).get("stream")
        return await (ANTHROPIC.streams(["a"]) if streamed else ANTHROPIC.answers("a"))(request)

    anthropic.upstream.answer(noting)
    for _ in range(2):
        await anthropic.complete()
        await anthropic.stream()
    assert len(ports) == 1


async def test_many_calls_at_once_do_not_mix(anthropic: Provider) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())["messages"][0]["content"][0]["text"]
        return await ANTHROPIC.streams([asked[:3], asked[3:]])(request)

    anthropic.upstream.answer(echo)
    words = [f"word-{number}" for number in range(40)]
    asked = [{**HELLO, "messages": [{"role": "user", "content": word}]} for word in words]
    streamed = await asyncio.gather(*(anthropic.stream(body) for body in asked))
    assert [one.text for one in streamed] == words
