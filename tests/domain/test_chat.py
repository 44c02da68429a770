"""What decisions read of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.domain.chat import NO_FACTS, AnswerFacts, ChatRequest


def tokens(*messages: Any) -> int:
    request = ChatRequest(body=b"", model="auto", stream=False, members={"messages": json.dumps(messages).encode()})
    return request.estimated_input_tokens()


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("content", "estimate"),
    [("", 0), ("abc", 0), ("Test", 1), ("Hello world", 2), ("x" * 40_003, 10_000), ("x" * 40_004, 10_001)],
)
def test_estimate_is_text_length_by_four(content: str, estimate: int) -> None:
    assert tokens(user(content)) == estimate


def test_lengths_are_added_up_before_they_are_divided() -> None:
    assert tokens(user("ab"), user("cd")) == 1
    assert tokens(user("abc"), user("abc"), user("ab")) == 2


def test_text_parts_count_and_others_do_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}
    assert tokens(user([text("abcd"), image, text("efgh")])) == 2


def test_every_role_counts() -> None:
    roles = ("system", "developer", "user", "assistant", "tool", "function")
    assert tokens(*({"role": role, "content": "abcd"} for role in roles)) == len(roles)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        user([]),
        user([text(None)]),
        user([text(5)]),
        user([{"type": "text"}]),
        user(["just a string", 5, None, ["nested"]]),
        user(5),
        user({"text": "not a list"}),
        "not an object",
        None,
    ],
)
def test_a_message_without_readable_text_counts_nothing_and_breaks_nothing(message: Any) -> None:
    assert tokens(message, user("abcd")) == 1


def test_characters_count_not_bytes_nor_escapes() -> None:
    written_out = "日本語で😀"
    escaped = json.dumps([user(written_out)])
    raw = json.dumps([user(written_out)], ensure_ascii=False)
    for messages in (escaped, raw):
        request = ChatRequest(body=b"", model="auto", stream=False, members={"messages": messages.encode()})
        assert request.estimated_input_tokens() == len(written_out) // 4 == 1


def test_a_lone_surrogate_is_one_character() -> None:
    request = ChatRequest(
        body=b"", model="auto", stream=False, members={"messages": rb'[{"role":"user","content":"abc\ud800"}]'}
    )
    assert request.estimated_input_tokens() == 1


def test_what_is_billed_besides_texts_counts_for_the_books_only() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "abcd", "arguments": '{"x": 12}...'}}
    members = {
        "messages": json.dumps([user("abcd"), {"role": "assistant", "content": None, "tool_calls": [call]}]).encode(),
        "tools": b"[12345678901234]",
        "functions": b"[  ]",
    }
    request = ChatRequest(body=b"", model="auto", stream=False, members=members)
    assert request.estimated_input_tokens() == 1
    assert request.estimated_billed_input_tokens() == 1 + 4 + 4 + 1


@pytest.mark.parametrize(
    "calls", [None, 5, {}, [], [None], ["x"], [{}], [{"function": None}], [{"function": {"name": 5, "arguments": {}}}]]
)
def test_calls_of_any_form_break_nothing(calls: Any) -> None:
    messages = json.dumps([user("abcd"), {"role": "assistant", "tool_calls": calls}, "x", None]).encode()
    request = ChatRequest(body=b"", model="auto", stream=False, members={"messages": messages})
    assert request.estimated_billed_input_tokens() == 1


def test_nothing_known_is_none_everywhere() -> None:
    assert AnswerFacts() == NO_FACTS
    assert (NO_FACTS.usage, NO_FACTS.model, NO_FACTS.finish_reason, NO_FACTS.error_message) == (None,) * 4
