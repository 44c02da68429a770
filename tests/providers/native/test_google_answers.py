"""What becomes of Google's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.domain.chat import Usage
from proxy.domain.errors import (
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    StreamBroken,
)
from proxy.infrastructure.chat_completion.native.google import without_odd_line_ends
from tests.harness import says, stall, streams
from tests.providers.conftest import HELLO, Provider, Streamed, is_last
from tests.providers.google_upstream import GOOGLE, data, error, function_call, response, streaming, text
from tests.providers.kinds import INPUT_TOKENS, OUTPUT_TOKENS

THOUGHTFUL = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 30,
    "toolUsePromptTokenCount": 3,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 20,
    "totalTokenCount": 128,
}
FINISH_REASONS = [
    ("STOP", "stop"),
    ("MAX_TOKENS", "length"),
    ("SAFETY", "content_filter"),
    ("RECITATION", "content_filter"),
    ("PROHIBITED_CONTENT", "content_filter"),
]


async def test_tokens_of_audio_and_images_are_told_apart(google: Provider) -> None:
    told = {
        **THOUGHTFUL,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 40},
            {"modality": "AUDIO", "tokenCount": 50},
            {"modality": "IMAGE", "tokenCount": 10},
        ],
        "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 4}, {"modality": "TEXT", "tokenCount": 1}],
    }
    google.upstream.answer(says(response(text("Hi"), usageMetadata=told)))
    call, history, settings = google.call()
    await google.service.get_chat_message_contents(history, settings)
    expected = Usage(103, 25, 30, 20, audio_tokens=50, image_tokens=10, image_output_tokens=4)
    assert call.answer.facts().usage == expected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("served", "tier"), [("flex", "flex"), ("PRIORITY", "priority"), ("standard", None)])
async def test_the_service_tier_is_the_one_that_served(
    google: Provider, stream: bool, served: str, tier: str | None
) -> None:
    """Google tells it by a header alone."""
    answer, headers = response(text("Hi"), usageMetadata=THOUGHTFUL), {"X-Gemini-Service-Tier": served}
    call, history, settings = google.call({**HELLO, "stream": stream, "stream_options": {"include_usage": True}})
    if stream:
        google.upstream.answer(streams(data(answer), headers=headers))
        streamed = Streamed()
        async for (content,) in google.service.get_streaming_chat_message_contents(history, settings):
            streamed.data += content.inner_content or b""
        told = streamed.chunks[-1]
    else:
        google.upstream.answer(says(answer, headers=headers))
        (whole,) = await google.service.get_chat_message_contents(history, settings)
        told = json.loads(whole.inner_content or b"")
    assert (told["usage"]["prompt_tokens"], told.get("service_tier")) == (103, tier)
    assert call.answer.facts().usage == Usage(103, 25, 30, 20, service_tier=tier)


async def test_an_answer_is_as_openai_would_give_it(google: Provider) -> None:
    google.upstream.answer(
        says(response({"text": "Hm.", "thought": True}, text("Hi "), text("there!"), usageMetadata=THOUGHTFUL))
    )
    call, history, settings = google.call()
    (content,) = await google.service.get_chat_message_contents(history, settings)
    answer = json.loads(content.inner_content or b"")
    assert (answer["id"], answer["model"], answer["object"]) == ("resp_1", "served-model", "chat.completion")
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("Hi there!", "Hm.")
    assert answer["usage"] == {
        "prompt_tokens": 103,
        "completion_tokens": 25,
        "total_tokens": 128,
        "prompt_tokens_details": {"cached_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert call.answer.facts().usage == Usage(103, 25, cached_tokens=30, reasoning_tokens=20)
    assert (call.attempts, call.generation_id) == (1, "resp_1")


@pytest.mark.parametrize(("told", "finish_reason"), FINISH_REASONS)
async def test_why_an_answer_ended(google: Provider, told: str, finish_reason: str) -> None:
    google.upstream.answer(says(response(text("a"), finish_reason=told)))
    body, _ = await google.complete()
    assert json.loads(body)["choices"][0]["finish_reason"] == finish_reason
    google.upstream.answer(streaming(response(text("a"), finish_reason=None), response(finish_reason=told)))
    assert (await google.stream()).finish_reasons == [finish_reason]


async def test_calls_without_ids_get_their_own(google: Provider) -> None:
    calls = [function_call(None, "f__g-h", {"a": [None, 1]}), function_call(None, "f__g-h", {})]
    google.upstream.answer(says(response(*calls)))
    body, _ = await google.complete()
    choice = json.loads(body)["choices"][0]
    named = choice["message"]["tool_calls"]
    assert len({call["id"] for call in named}) == 2
    assert [call["function"]["name"] for call in named] == ["f__g-h"] * 2
    assert [json.loads(call["function"]["arguments"]) for call in named] == [{"a": [None, 1]}, {}]
    assert choice["finish_reason"] == "tool_calls"


async def test_calls_in_several_chunks_are_several_calls(google: Provider) -> None:
    google.upstream.answer(
        streaming(
            response(text("Look"), finish_reason=None),
            response(
                function_call(None, "f", {"a": 1}, thoughtSignature="c2ln"),
                function_call(None, "f", {"a": 2}),
                finish_reason=None,
            ),
            response(function_call(None, "g", {}), usageMetadata=THOUGHTFUL),
        )
    )
    streamed = await google.stream({**HELLO, "stream_options": {"include_usage": True}})
    deltas = [choice["delta"] for chunk in streamed.chunks for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    told = [(call["index"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert told == [(0, "f", '{"a": 1}'), (1, "f", '{"a": 2}'), (2, "g", "{}")]
    assert len({call["id"] for call in calls}) == 3
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert streamed.finish_reasons == ["tool_calls"]
    assert streamed.chunks[-1]["usage"]["completion_tokens"] == 25


async def test_usage_may_come_in_a_chunk_of_its_own(google: Provider) -> None:
    chunk = {"usageMetadata": THOUGHTFUL, "modelVersion": "served-model", "responseId": "resp_1"}
    google.upstream.answer(streaming(response(text("a"), usageMetadata=None), chunk))
    streamed = await google.stream()
    assert is_last(streamed.metadata[-1])
    assert (streamed.metadata[-1]["input_tokens"], streamed.metadata[-1]["output_tokens"]) == (103, 25)


@pytest.mark.parametrize(
    "odd", [{"candidatesTokenCount": -3}, {"promptTokenCount": -1}, {"promptTokenCount": None}], ids=str
)
async def test_usage_that_makes_no_sense_is_no_usage(google: Provider, odd: dict[str, Any]) -> None:
    """Nor is the one before it that of the answer."""
    google.upstream.answer(says(response(text("Hi"), usageMetadata=THOUGHTFUL | odd)))
    body, metadata = await google.complete()
    assert "usage" not in json.loads(body)
    assert "output_tokens" not in metadata
    begun = response(text("Hi"), finish_reason=None, usageMetadata=THOUGHTFUL)
    google.upstream.answer(streaming(begun, response(text(""), usageMetadata=THOUGHTFUL | odd)))
    streamed = await google.stream({**HELLO, "stream_options": {"include_usage": True}})
    assert (streamed.text, streamed.chunks[-1]["choices"][0]["finish_reason"]) == ("Hi", "stop")
    assert "output_tokens" not in streamed.metadata[-1]


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({"thoughtsTokenCount": -1}, [103, 5, 30, None]),
        ({"toolUsePromptTokenCount": -1}, [100, 25, 30, 20]),
        ({"cachedContentTokenCount": -1}, [103, 25, None, 20]),
    ],
    ids=str,
)
async def test_a_count_that_makes_no_sense_leaves_the_others(
    google: Provider, odd: dict[str, Any], expected: list[int | None]
) -> None:
    google.upstream.answer(says(response(text("Hi"), usageMetadata=THOUGHTFUL | odd)))
    _, told = await google.complete()
    counts = [told[f"{kind}_tokens"] for kind in ("input", "output", "cached", "reasoning")]
    assert counts == expected


async def test_a_blocked_prompt_is_a_refusal_of_its_content(google: Provider) -> None:
    google.upstream.answer(says({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}))
    for asking in (google.complete, google.stream):
        with pytest.raises(PermanentUpstreamError, match=r"blocked.*SAFETY") as caught:
            await asking()
        assert (caught.value.status, caught.value.is_content_policy) == (400, True)
        google.upstream.answer(streaming({"promptFeedback": {"blockReason": "SAFETY"}}))


@pytest.mark.filterwarnings("ignore:SOMETHING_NEW is not a valid")
@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER", "SOMETHING_NEW"])
async def test_an_end_without_a_word_for_it_is_no_plain_stop(google: Provider, reason: str) -> None:
    google.upstream.answer(says(response(finish_reason=reason)))
    with pytest.raises(InvalidUpstreamAnswer, match=reason):
        await google.complete()
    google.upstream.answer(streaming(response(text("a"), finish_reason=None), response(finish_reason=reason)))
    streamed = Streamed()
    with pytest.raises(StreamBroken, match=reason):
        await google.stream(into=streamed)
    assert streamed.text == "a"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"<html>", b'{"candidates":[]}', b'{"candidates":5}'])
async def test_an_answer_that_is_none_is_an_invalid_answer(google: Provider, body: bytes) -> None:
    google.upstream.answer(says(body))
    with pytest.raises(InvalidUpstreamAnswer):
        await google.complete()
    assert google.upstream.calls == 1


# Errors


async def test_an_error_in_the_middle_breaks_the_stream_with_the_providers_words(google: Provider) -> None:
    broken = json.dumps(error(503, "The model is overloaded.")).encode()
    for last in (b"data: " + broken + b"\r\n\r\n", broken):
        google.upstream.answer(streams(data(response(text("Hel"), finish_reason=None)), last, generation_header=None))
        streamed = Streamed()
        with pytest.raises(StreamBroken, match="overloaded"):
            await google.stream(into=streamed)
        assert streamed.text == "Hel"


async def test_an_error_event_before_the_first_word_is_tried_again(google: Provider) -> None:
    broken = data(error(503, "The model is overloaded."))
    google.upstream.answer(streams(broken, generation_header=None), GOOGLE.streams(["ok"]))
    assert (await google.stream()).text == "ok"
    assert google.upstream.calls == 2


async def test_the_wait_that_an_error_asks_for_is_kept(google: Provider) -> None:
    asks = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    google.upstream.answer(says(error(429, "quota", asks), status=429), GOOGLE.answers("ok"))
    await google.complete()
    assert google.time.waits == [7.5]


async def test_a_clean_end_without_a_finish_reason_is_no_end(google: Provider) -> None:
    google.upstream.answer(streaming(response(text("Hello"), finish_reason=None)))
    streamed = Streamed()
    with pytest.raises(StreamBroken) as caught:
        await google.stream(into=streamed)
    assert (caught.value.kind, streamed.text) == ("stream_truncated", "Hello")


async def test_odd_line_separators_in_a_text_are_text(google: Provider) -> None:
    """JSON may hold them as they are; the SDK takes them for the ends of lines."""
    words = "a\u2028b\u2029c\u0085d"
    raw = b"data: " + json.dumps(response(text(words)), ensure_ascii=False).encode() + b"\r\n\r\n"
    for size in (1, 2, 3, len(raw)):
        google.upstream.answer(streams(*(raw[i : i + size] for i in range(0, len(raw), size)), generation_header=None))
        assert (await google.stream()).text == words


async def test_escaping_loses_nothing() -> None:
    async def reads() -> AsyncIterator[bytes]:
        for part in (b"a\xe2", b"\x80", b"\xa8b\xc2", b"\xa0c\xe2\x82", b"\xac", b"\xc2\x85d\xe2\x80"):
            yield part

    assert b"".join([part async for part in without_odd_line_ends(reads())]) == (
        rb"a\u2028b" + b"\xc2\xa0c\xe2\x82\xac" + rb"\u0085d" + b"\xe2\x80"
    )


async def test_what_was_said_before_hanging_up_is_estimated(google: Provider) -> None:
    google.upstream.answer(GOOGLE.breaks_off(["Hello, wo", "rld!"], stall))
    call, history, settings = google.call({**HELLO, "stream": True})
    contents: Any = google.service.get_streaming_chat_message_contents(history, settings)
    said = b""
    while b"rld" not in said:
        said += (await anext(contents))[0].inner_content
    call.hang_up()
    await contents.aclose()
    await google.hung_up()
    assert call.answer.facts().usage == Usage(INPUT_TOKENS, OUTPUT_TOKENS, estimated=True)
    assert call.answer.estimated_output_tokens() == 3
