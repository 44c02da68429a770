"""OpenRouterChatCompletion's streams as a Semantic Kernel program sees them."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any

import pytest
from semantic_kernel.contents import AuthorRole, FinishReason, FunctionCallContent, StreamingChatMessageContent

from proxy.domain.errors import PermanentUpstreamError, StreamBroken, TransientUpstreamError, UpstreamError
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from proxy.infrastructure.connector import DirectConnector
from tests.harness import USAGE, Upstream, chunk, cut, ending, fails, stall, streams
from tests.infrastructure.conftest import Connector, hello, settings

DONE = b"data: [DONE]\n\n"


async def stream(service: OpenRouterChatCompletion, **parameters: Any) -> list[StreamingChatMessageContent]:
    """All contents, in order; when several choices come at once, all of them."""
    answer = service.get_streaming_chat_message_contents(hello(), settings(**parameters))
    return [content async for contents in answer for content in contents]


def choice(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0) -> bytes:
    return chunk(choices=[{"index": index, "delta": delta, "finish_reason": finish_reason}])


def apart(*writes: bytes) -> Any:
    """Each event arrives on its own."""
    return streams(*writes, pause_seconds=0.01)


async def test_text_comes_in_pieces_and_facts_at_the_end(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(apart(chunk("Hel"), chunk("lo, "), chunk("světe"), *ending()))
    contents = await stream(service)
    assert "".join(content.content for content in contents) == "Hello, světe"
    assert [content.content for content in contents][:3] == ["Hel", "lo, ", "světe"]
    assert all(content.role is AuthorRole.ASSISTANT for content in contents)
    assert [content.finish_reason for content in contents if content.finish_reason] == [FinishReason.STOP]
    last = contents[-1].metadata
    assert (last["input_tokens"], last["output_tokens"], last["cost"]) == (10, 5, Decimal("0.00123"))
    assert last["generation_id"] == "gen-1"
    assert not any("input_tokens" in content.metadata for content in contents[:3])


async def test_the_payload_asks_for_a_stream_and_invents_nothing_else(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    upstream.answer(streams(chunk("a"), *ending()))
    await stream(service, model="a/b", temperature=0.1)
    assert json.loads(upstream.bodies[0]) == {
        "model": "a/b",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.1,
        "stream": True,
    }


async def test_events_that_arrive_together_lose_nothing(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(streams(b"".join([chunk("a"), chunk("b"), chunk("c"), *ending()])))
    contents = await stream(service)
    assert "".join(content.content for content in contents) == "abc"
    assert contents[-1].metadata["output_tokens"] == 5


async def test_the_contents_of_a_stream_add_up_to_the_message(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    """As Semantic Kernel itself adds them: comments, preambles and the usage chunk must not be in the way."""
    role = choice({"role": "assistant", "content": ""})
    comment = b": OPENROUTER PROCESSING\n\n"
    upstream.answer(apart(comment, role, chunk("Hel"), comment, chunk("lo"), *ending()))
    message = reduce(add, await stream(service))
    assert message.content == "Hello"
    assert message.finish_reason is FinishReason.STOP
    assert message.metadata["output_tokens"] == 5


async def test_fragments_of_tool_calls_add_up(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    def fragment(index: int, arguments: str, **named: Any) -> bytes:
        call = {"index": index, "function": {"arguments": arguments}}
        if named:
            call |= {"id": named["id"], "type": "function", "function": {"name": named["name"], "arguments": arguments}}
        return choice({"tool_calls": [call]})

    upstream.answer(
        apart(
            fragment(0, "", id="call_1", name="weather-get"),
            fragment(0, '{"city":'),
            fragment(0, '"Brno"}'),
            fragment(1, "", id="call_2", name="now"),
            fragment(1, "{}"),
            choice({}, "tool_calls"),
            *ending()[1:],
        )
    )
    contents = await stream(service)
    first = contents[0].items[0]
    assert isinstance(first, FunctionCallContent)
    assert (first.id, first.index, first.name) == ("call_1", 0, "weather-get")
    message = reduce(add, (content for content in contents if content.items or content.finish_reason))
    calls = [item for item in message.items if isinstance(item, FunctionCallContent)]
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("call_1", "weather-get", '{"city":"Brno"}'),
        ("call_2", "now", "{}"),
    ]
    assert message.finish_reason is FinishReason.TOOL_CALLS


async def test_choices_are_told_apart(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(apart(choice({"content": "a"}), choice({"content": "b"}, index=1), choice({"content": "c"}), DONE))
    contents = await stream(service, n=2)
    texts = [(content.choice_index, content.content) for content in contents if content.content]
    assert texts == [(0, "a"), (1, "b"), (0, "c")]


async def test_a_finish_reason_without_a_word_for_it_is_kept_in_the_raw_choice(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    upstream.answer(apart(chunk("a"), choice({}, "error"), chunk(choices=[], usage=USAGE), DONE))
    contents = await stream(service)
    assert all(content.finish_reason is None for content in contents)
    assert {"index": 0, "delta": {}, "finish_reason": "error"} in [content.inner_content for content in contents]


@pytest.mark.parametrize("framed", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
async def test_other_framings_are_understood(
    service: OpenRouterChatCompletion, upstream: Upstream, framed: bytes
) -> None:
    raw = b"".join([chunk("a"), b": comment\n\n", chunk("b"), *ending()]).replace(b"\n", framed)
    upstream.answer(streams(*(raw[at : at + 7] for at in range(0, len(raw), 7))))
    contents = await stream(service)
    assert "".join(content.content for content in contents) == "ab"


async def test_a_chunk_of_more_than_a_megabyte_is_not_lost(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    text = "x" * 3_000_000
    upstream.answer(streams(chunk("a"), chunk(text), chunk("b"), *ending()))
    assert "".join(content.content for content in await stream(service)) == f"a{text}b"


async def test_a_missing_usage_is_told_once_as_an_error(
    service: OpenRouterChatCompletion, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when something follows `[DONE]`."""
    upstream.answer(apart(chunk("a"), ending()[0], DONE, b": bye\n\n", b": bye\n\n"))
    contents = await stream(service)
    assert "".join(content.content for content in contents) == "a"
    assert not any("input_tokens" in content.metadata for content in contents)
    assert [record.levelno for record in caplog.records if "usage" in record.message] == [logging.ERROR]


async def test_a_stream_without_chunks_is_an_empty_answer(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    upstream.answer(streams(DONE))
    assert [content.content for content in await stream(service)] == [""]


# Errors


@pytest.mark.parametrize(("code", "kind"), [(503, TransientUpstreamError), (403, PermanentUpstreamError)])
async def test_an_error_at_the_beginning_has_its_type(
    connector: Connector, upstream: Upstream, code: int, kind: type[UpstreamError]
) -> None:
    event = b"data: " + json.dumps({"error": {"code": code, "message": "sorry"}}).encode() + b"\n\n"
    for answering in (fails(code, message="sorry"), streams(b": wait\n\n", event)):
        upstream.answer(answering)
        with pytest.raises(kind, match="sorry") as caught:
            await stream(connector.service)
        assert caught.value.status == code
        assert upstream.calls == (4 if kind is TransientUpstreamError else 1)


async def test_a_beginning_that_fails_is_retried(connector: Connector, upstream: Upstream) -> None:
    error = b'data: {"error":{"code":502,"message":"no"}}\n\n'
    upstream.answer(fails(529), streams(error), streams(then=cut), streams(chunk("a"), *ending()))
    contents = await stream(connector.service)
    assert "".join(content.content for content in contents) == "a"
    assert connector.time.waits == [1.0, 2.0, 4.0]


async def test_a_stream_that_breaks_raises_after_what_came(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    upstream.answer(streams(chunk("a"), chunk("b"), then=cut, pause_seconds=0.01))
    seen: list[str] = []

    async def read() -> None:
        async for contents in service.get_streaming_chat_message_contents(hello(), settings()):
            seen.extend(content.content for content in contents)

    with pytest.raises(StreamBroken):
        await read()
    assert "".join(seen) == "ab"
    assert upstream.calls == 1


async def test_an_error_in_the_middle_is_raised_with_its_words(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    error = b'data: {"error":{"code":502,"message":"provider gone"},"choices":[]}\n\n'
    upstream.answer(apart(chunk("a"), error))
    with pytest.raises(StreamBroken, match="provider gone"):
        await stream(service)


async def test_an_error_in_the_middle_is_raised_even_before_done(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    """A program that reads contents sees no raw event: nothing else would tell it that the answer is not whole."""
    error = b'data: {"error":{"code":502,"message":"provider gone"},"choices":[]}\n\n'
    upstream.answer(apart(chunk("a"), error, DONE))
    with pytest.raises(UpstreamError, match="provider gone"):
        await stream(service)


@pytest.mark.parametrize(
    "data",
    [
        b"{oops",
        b"[]",
        b"null",
        b'{"choices":[7]}',
        b'{"choices":{}}',
        b'{"choices":"text"}',
        b'{"choices":[{"delta":"text"}]}',
        b'{"choices":[{"delta":{"content":[1]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[1]}}]}',
        b'{"choices":[{"delta":{"tool_calls":{}}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":"a","function":[]}]}}]}',
        b'{"choices":[{"index":null,"delta":{}}]}',
        b'{"choices":[{"delta":{},"finish_reason":[]}]}',
    ],
)
async def test_an_event_that_cannot_be_read_is_no_crash(
    service: OpenRouterChatCompletion, upstream: Upstream, data: bytes
) -> None:
    """It is the upstream's error, or passed over."""
    upstream.answer(apart(chunk("a"), b"data: " + data + b"\n\n", chunk("b"), *ending()))
    try:
        contents = await stream(service)
    except UpstreamError:
        return
    assert "".join(content.content for content in contents) == "ab"


# The end of the call


async def test_a_program_that_stops_reading_ends_the_upstream_call(connector: Connector, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("a"), then=stall))
    answer = connector.service.get_streaming_chat_message_contents(hello(), settings())
    async for _ in answer:
        break
    await answer.aclose()
    async with asyncio.timeout(10):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.005)
    assert isinstance(connector.session.connector, DirectConnector)
    assert connector.session.connector.in_use == 0


async def test_streams_give_their_connections_back(connector: Connector, upstream: Upstream) -> None:
    upstream.answer(fails(503), streams(chunk("a"), *ending()), streams(chunk("a"), then=cut), streams(b": hm\n\n"))
    await stream(connector.service)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await stream(connector.service)
    assert isinstance(connector.session.connector, DirectConnector)
    assert connector.session.connector.in_use == 0


async def test_a_breaker_counts_beginnings_not_endings(connector: Connector, upstream: Upstream) -> None:
    """An answer that has begun shows that the upstream lives."""
    for _ in range(6):
        upstream.answer(streams(chunk("a"), then=cut, pause_seconds=0.01))
        with pytest.raises(StreamBroken):
            await stream(connector.service)
    assert connector.breaker.state == "closed"
