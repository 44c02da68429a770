"""Long requests of plain texts are read in one look, with the same result as all others."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.api.openai.envelope import MAX_DEPTH, read_chat_request
from proxy.api.openai.fields import FIELDS, ROLES
from proxy.api.openai.flat_requests import LONG_BYTES, FlatMembers
from proxy.domain.errors import InvalidRequest

LONG = "x" * LONG_BYTES
UNKNOWN = b'{"unknown": 0, '


def body_of(*messages: Any, **members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": LONG}, *messages], **members}).encode()


def outcome(body: bytes) -> object:
    """What becomes of a body, in terms that can be compared."""
    try:
        request = read_chat_request(body)
    except InvalidRequest as error:
        return error.param, error.code, re.sub(r"byte \d+", "byte", str(error))
    members = {name: bytes(value) for name, value in request.members.items() if name not in ("unknown", "messages")}
    return request.model, request.stream, request.has_parts, request.messages, members


def is_read_in_one_look(body: bytes) -> bool:
    return isinstance(read_chat_request(body).members, FlatMembers)


def test_a_long_conversation_is_read_in_one_look_and_its_messages_only_if_asked_for() -> None:
    body = body_of({"role": "assistant", "content": None}, {"content": "ünd\n", "role": "user"}, temperature=0.5)
    request = read_chat_request(body)
    assert isinstance(request.members, FlatMembers)
    assert set(request.members) == {"model", "temperature"}
    assert json.loads(request.messages) == json.loads(body)["messages"]
    assert request.messages in body
    assert request.member("top_p") is None
    with pytest.raises(KeyError):
        _ = request.members["top_p"]


@pytest.mark.parametrize(
    "body",
    [
        body_of({"role": "user", "content": [{"type": "text", "text": "hi"}]}),
        body_of({"role": "user", "content": "hi", "name": "me"}),
        body_of(unknown=1),
        body_of({"role": "user", "content": "\ud800"}),
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "short"}]}).encode(),
    ],
    ids=["parts", "a name", "an unknown member", "a lone surrogate", "short"],
)
def test_everything_else_is_read_the_usual_way(body: bytes) -> None:
    assert not is_read_in_one_look(body)


_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), st.just(2.0),
)  # fmt: skip
_contents: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=20), st.none(), st.integers(), st.just([]), st.just([{"type": "text"}])
)
_roles = st.one_of(st.sampled_from(ROLES), st.sampled_from(["", "User", "robot"]))
_messages = st.lists(st.fixed_dictionaries({"role": _roles}, optional={"content": _contents, "name": st.just("n")}))
_members = st.dictionaries(st.sampled_from([name for name in FIELDS if name != "messages"]), _values, max_size=4)


@settings(max_examples=300, deadline=None, database=None)
@given(messages=_messages, members=_members, spaces=st.sampled_from(["", " ", "\n\t"]))
def test_the_result_is_that_of_the_usual_way(messages: Any, members: Any, spaces: str) -> None:
    body = body_of(*messages, **members).replace(b", ", b"," + spaces.encode())
    assert outcome(body) == outcome(UNKNOWN + body[1:])


@pytest.mark.parametrize(
    "body",
    [
        body_of()[:-1] + b',"model":"n","stream":true,"stream":false}',
        body_of()[:-1] + b',"messages":[{"role":"user","content":"last"}]}',
        body_of()[:-1] + b',"messages":[]}',
        body_of()[:-1] + rb',"\u006dodel":"n"}',
        body_of()[:-1] + b',"seed":123456789012345678901234567890,"n":2.0}',
        body_of()[:-1],
        body_of() + b"}",
        body_of().replace(b"xxx", b"\xff\xff\xff", 1),
        body_of().replace(b'"m"', b'" "', 1),
        body_of(metadata={"deep": json.loads("[" * 200 + "]" * 200)}),
        body_of()[:-1] + b',"metadata":{"a":' + b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2) + b"}}",
        body_of()[:-1] + b',"metadata":{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}}",
    ],
    ids=[
        "twice", "two lists", "an empty list last", "an escaped name", "odd numbers", "cut", "too much", "not UTF-8",
        "blank", "nested", "nested as deep as may be", "nested deeper",
    ],
)  # fmt: skip
def test_oddities_come_out_as_in_the_usual_way(body: bytes) -> None:
    assert outcome(body) == outcome(UNKNOWN + body[1:])
