"""What routing reads of a request, and what it does not look at."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api.openai.envelope import read_chat_request
from proxy.domain.catalog import Capability
from proxy.domain.chat import ChatRequest
from proxy.domain.routing import RequestShape
from proxy.domain.routing.shape import MOST_LISTED_MODELS
from tests.catalogs import asking

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

AUDIO, FILES, JSON_SCHEMA, TOOLS, VISION = sorted(Capability)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_id": "f"}}
TEXT = {"type": "text", "text": "what is this?"}


def of_body(body: str) -> RequestShape:
    return RequestShape(read_chat_request(body.encode()))


def of_messages(*messages: dict[str, Any]) -> RequestShape:
    return of_body(json.dumps({"model": "m", "messages": messages}))


# Capabilities


def test_a_plain_request_needs_nothing() -> None:
    assert asking().needs == frozenset()


@pytest.mark.parametrize(
    ("parts", "needs"),
    [
        ([TEXT], set()),
        ([TEXT, IMAGE], {VISION}),
        ([SOUND], {AUDIO}),
        ([FILE, IMAGE, IMAGE], {FILES, VISION}),
        ([{"type": "video_url"}, {}, None, "image_url", {"type": ["image_url"]}, {"type": None}], set()),
    ],
)
def test_parts_of_the_messages_need_capabilities(parts: list[Any], needs: set[Capability]) -> None:
    assert of_messages({"role": "user", "content": "Hi"}, {"role": "user", "content": parts}).needs == needs


def test_an_image_in_a_tools_answer_needs_vision_too() -> None:
    assert of_messages({"role": "tool", "tool_call_id": "c", "content": [IMAGE]}).needs == {VISION}


def test_text_about_images_needs_no_vision() -> None:
    written = json.dumps(IMAGE)
    assert of_messages({"role": "user", "content": written}).needs == frozenset()
    assert of_messages({"role": "user", "content": [{"type": "text", "text": written}]}).needs == frozenset()
    assert of_messages({"role": "user", "content": "image_url", "name": "image_url"}).needs == frozenset()


@pytest.mark.parametrize(
    ("members", "needs"),
    [
        ('"tools": [{"type": "function"}]', {TOOLS}),
        ('"functions": [{"name": "f"}]', {TOOLS}),
        ('"tools": []', set()),
        ('"tools" : [ \n ]', set()),
        ('"tools": [ null ]', {TOOLS}),
        ('"tools": null', set()),
        ('"response_format": {"type": "json_schema", "json_schema": {}}', {JSON_SCHEMA}),
        ('"response_format": {"type": "json_object"}', set()),
        ('"response_format": {"type": "text", "json_schema": 1}', set()),
        ('"response_format": {"type": "text", "of": "json_schema"}', set()),
        ('"response_format": null', set()),
        ('"tools": [1], "response_format": {"json_schema": null, "type": "json_schema"}', {TOOLS, JSON_SCHEMA}),
    ],
)
def test_members_need_capabilities(members: str, needs: set[Capability]) -> None:
    assert of_body('{"model": "m", "messages": [{"role": "user", "content": "Hi"}], ' + members + "}").needs == needs


# Sessions, models, limits


@pytest.mark.parametrize(
    ("members", "session"),
    [
        ({}, None),
        ({"user": "u"}, "u"),
        ({"session_id": "s", "user": "u"}, "s"),
        ({"user": "u", "session_id": "s", "prompt_cache_key": "p"}, "p"),
        ({"prompt_cache_key": None, "user": "u"}, "u"),
        ({"prompt_cache_key": "", "user": "u"}, "u"),
        ({"session_id": 7, "user": "u"}, "u"),
        ({"session_id": {"a": "b"}}, None),
        ({"session_id": ["s"]}, None),
        ({"user": "\u00fc\U0001f600"}, "\u00fc\U0001f600"),
        ({"user": "\ud800"}, "?"),  # of the copy that is looked at
    ],
)
def test_a_session_is_the_first_of_three_keys(members: dict[str, Any], session: str | None) -> None:
    assert asking(**members).session == session


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        (["a", "b"], ("a", "b")),
        ([], ()),
        (None, ()),
        (["a", 7, None, ["b"], {"c": 1}, "d"], ("a", "d")),
        ([str(number) for number in range(1000)], tuple(str(number) for number in range(MOST_LISTED_MODELS))),
    ],
)
def test_the_requests_own_models(listed: Any, models: tuple[str, ...]) -> None:
    assert asking(models=listed).models == models
    assert asking().models == ()


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ("", None),
        (', "max_tokens": 5', 5),
        (', "max_completion_tokens": 7, "max_tokens": 5', 7),
        (', "max_completion_tokens": null, "max_tokens": 5', 5),
        (', "max_tokens": 5.0', 5),
        (', "max_tokens": 0', None),
        (', "max_tokens": -1', None),
        (', "max_completion_tokens": 5, "max_tokens": 7', 7),  # which counts is the upstream's to say
        (', "max_tokens": ' + "9" * 400, 2**53),  # more than a float has
        (', "max_tokens": ' + "9" * 5000, 2**53),  # more digits than Python takes
    ],
)
def test_the_limit_of_the_answer(members: str, limit: int | None) -> None:
    shape = of_body('{"model": "m", "messages": [{"role": "user", "content": "Hi"}]' + members + "}")
    assert shape.max_output_tokens == limit


# The prompt's length


@_property
@given(st.lists(st.text(max_size=50), min_size=1, max_size=5), st.booleans())
def test_the_free_bound_is_never_below_the_estimate(texts: list[str], escaped: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    try:
        body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:  # lone surrogates are legal only as escapes
        body = json.dumps({"model": "m", "messages": messages}).encode()
    shape = RequestShape(read_chat_request(body))
    assert shape.input_tokens <= shape.most_input_tokens


def test_the_estimate_is_four_characters_to_a_token() -> None:
    assert asking(text="x" * 403).input_tokens == 100


# What is not looked at


def test_nothing_is_parsed_until_it_is_asked_for_and_then_once() -> None:
    asked: list[str] = []

    class Members(dict[str, bytes]):
        def __contains__(self, name: object) -> bool:
            asked.append(str(name))
            return True

        def __getitem__(self, name: str) -> bytes:
            asked.append(name)
            return b"not JSON" if name == "models" else b'"key"'

        def get(self, name: str, _default: object = None) -> bytes:
            return self[name]

    shape = RequestShape(ChatRequest(b"{}", "m", False, Members()))
    assert (shape.model, shape.tags, asked) == ("m", frozenset(), [])
    assert (shape.session, shape.session) == ("key", "key")
    assert asked == ["prompt_cache_key"]


def test_a_request_of_messages_alone_asks_for_nothing() -> None:
    shape = RequestShape(ChatRequest(b"{}", "m", False, {"messages": b"[]"}))
    assert (shape.needs, shape.session, shape.models, shape.max_output_tokens) == (frozenset(), None, (), None)


@pytest.mark.parametrize(
    ("content", "has_parts"), [("text", False), (None, False), ([], True), ([{"type": "text", "text": "hi"}], True)]
)
def test_whether_there_are_parts_is_known_from_the_start(content: object, has_parts: bool) -> None:
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": content}, {"role": "assistant"}]
    request = read_chat_request(json.dumps({"model": "m", "messages": messages}).encode())
    assert request.has_parts is has_parts


def test_text_that_speaks_of_parts_has_none() -> None:
    shape = asking(text='{"type": "image_url"}, "file"')
    assert shape.mentioned_parts == (0, False, 0, 0)
    assert not shape.needs


def test_a_text_full_of_what_begins_like_images_costs_no_look_at_each() -> None:
    messages = (
        b'[{"role":"user","content":[{"type":"text","text":"' + rb"\"data:image" * 2_000_000 + b'"}],"image_url":0}]'
    )
    shape = RequestShape(ChatRequest(messages, "m", False, {"messages": messages}, has_parts=True))
    began = time.process_time()
    assert shape.mentioned_parts == (1, True, 0, 0)
    assert time.process_time() - began < 0.5  # 1.7 s, while nobody else is served, where each is looked at
