"""Editing and probing JSON text of any formatting, against texts whose right answer is known by construction."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.domain.json_bytes import (
    add_member,
    has_more_tokens_than,
    member_names,
    nests_deeper_than,
    replace_member,
    without_member,
    without_surrogate_escapes,
)

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

# JSON as text, in all its legal spellings.

_space = st.text(" \t\n\r", max_size=3)
_piece = st.one_of(
    st.characters(min_codepoint=0x20, exclude_characters='"\\', exclude_categories=["Cs"]),
    st.sampled_from("{}[]:,"),
    st.sampled_from(
        [r"\"", r"\\", r"\/", r"\n", r"\u0041", r"\u007B", r"\u0022", r"\u005c", r"\ud83d\ude00", r"\uD800"]
    ),
)
_string = st.lists(_piece, max_size=6).map(lambda pieces: '"' + "".join(pieces) + '"')
_scalar = st.one_of(
    _string,
    st.sampled_from(["null", "true", "false", "0", "-0", "-0.0", "1e5", "1E-400", "12345678901234567890", "0.10"]),
)


def _between(opening: str, closing: str, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    padded = st.tuples(_space, inner, _space).map("".join)
    filled = st.lists(padded, min_size=1, max_size=3).map(",".join)
    return (filled | _space).map(lambda text: opening + text + closing)


def _containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(_string | _model_name, _space, st.just(":"), _space, inner).map("".join)
    return _between("[", "]", inner) | _between("{", "}", member)


_model_name = st.sampled_from(['"model"', r'"mod\u0065l"', r'"\u006Dodel"', r'"\u006d\u006f\u0064\u0065\u006c"'])
_value = st.recursive(_scalar, _containers, max_leaves=8)


@dataclass(frozen=True)
class Document:
    """The text of an object, and the same text with another value for `model`."""

    text: str
    changed: str


NEW_VALUE = r'"new\u002Fmodel"'


@st.composite
def _documents(draw: st.DrawFn, models: int = 1) -> Document:
    """An object with at least that many members of the name `model`, among others."""
    others = draw(st.lists(_string, max_size=3))
    names = draw(st.permutations([*others, *(draw(_model_name) for _ in range(models))]))
    text = changed = draw(_space) + "{"
    for place, name in enumerate(names):
        before = ("," if place else "") + draw(_space) + name + draw(_space) + ":" + draw(_space)
        value, after = draw(_value), draw(_space)
        text += before + value + after
        changed += before + (NEW_VALUE if json.loads(name) == "model" else value) + after
    ending = ("" if names else draw(_space)) + "}" + draw(_space)
    return Document(text + ending, changed + ending)


def encoded(text: str) -> bytes:
    return text.encode()


# replace_member


@_property
@given(_documents() | _documents(models=2) | _documents(models=3))
def test_replacing_changes_the_values_of_that_member_and_not_a_byte_more(document: Document) -> None:
    assert replace_member(encoded(document.text), "model", encoded(NEW_VALUE)) == encoded(document.changed)


@_property
@given(_documents())
def test_the_result_parses_to_the_same_object_with_that_member_changed(document: Document) -> None:
    def members(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return pairs

    before = json.loads(document.text, object_pairs_hook=members)
    after = json.loads(replace_member(encoded(document.text), "model", encoded(NEW_VALUE)), object_pairs_hook=members)
    assert after == [(name, "new/model" if name == "model" else value) for name, value in before]


@_property
@given(_documents(models=0).filter(lambda document: document.text == document.changed))
def test_a_missing_member_is_a_key_error(document: Document) -> None:
    with pytest.raises(KeyError, match="model"):
        replace_member(encoded(document.text), "model", b"1")


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ('{"model":"a"}', '{"model":9}'),
        ('{"model":null}', '{"model":9}'),
        ('{"model":{"model":[1]} }', '{"model":9 }'),
        ('{"model":[{"model":1},"}"],"b":2}', '{"model":9,"b":2}'),
        ('\r\n{\t"model" \n:  "a"\t,"b":1}\n', '\r\n{\t"model" \n:  9\t,"b":1}\n'),
        ('{"a":"model","model":"a"}', '{"a":"model","model":9}'),
        ('{"a":["model"],"model":1}', '{"a":["model"],"model":9}'),
        ('{"a":{"model":1},"model":1}', '{"a":{"model":1},"model":9}'),
        (r'{"a":"\"model\":1,","model":1}', r'{"a":"\"model\":1,","model":9}'),
        (r'{"a\\":1,"model":"\\"}', r'{"a\\":1,"model":9}'),
        (r'{"mod\u0065l":1}', r'{"mod\u0065l":9}'),
        ('{"model":1,"model":2}', '{"model":9,"model":9}'),
        ('{"":1,"model":2}', '{"":1,"model":9}'),
        ('{"Model":1,"model ":2,"model":3}', '{"Model":1,"model ":2,"model":9}'),
        ('{"ключ":"ж","model":"ж"}', '{"ключ":"ж","model":9}'),
        ('{"n":12345678901234567890,"f":1.10,"model":1E2}', '{"n":12345678901234567890,"f":1.10,"model":9}'),
    ],
)
def test_examples_of_replacing(text: str, changed: str) -> None:
    assert replace_member(encoded(text), "model", b"9") == encoded(changed)


@pytest.mark.parametrize("text", ["{}", " { } ", '{"a":"model"}', '{"a":{"model":1}}', '{"a":[{"model":1}]}'])
def test_only_the_top_level_counts(text: str) -> None:
    with pytest.raises(KeyError):
        replace_member(encoded(text), "model", b"9")


def test_a_name_may_need_escapes() -> None:
    assert replace_member(rb'{"a\"b":1,"a":2}', 'a"b', b"9") == rb'{"a\"b":9,"a":2}'
    assert replace_member(rb'{"\ud800":1}', "\ud800", b"9") == rb'{"\ud800":9}'


def test_a_body_of_megabytes_with_one_long_string_is_edited() -> None:
    data_url = b"A" * (4 * 1024 * 1024)
    text = b'{"image":"' + data_url + b'","model":"a"}'
    assert replace_member(text, "model", b'"b"') == b'{"image":"' + data_url + b'","model":"b"}'


# without_member


@_property
@given(_documents() | _documents(models=2) | _documents(models=0))
def test_without_a_member_the_others_stay_byte_for_byte_and_in_order(document: Document) -> None:
    def members(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return pairs

    before = json.loads(document.text, object_pairs_hook=members)
    rest = without_member(encoded(document.text), "model")
    assert json.loads(rest, object_pairs_hook=members) == [(name, value) for name, value in before if name != "model"]
    assert rest == encoded(document.text) or document.text != document.changed


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ('{"model":"a"}', "{}"),
        (' {"model":"a" } ', " {} "),
        ('{"model":[1,{"model":2}], "b":2}', '{ "b":2}'),
        ('{"a" : 1 , "model":"}", "b":1.10}', '{"a" : 1 , "b":1.10}'),
        ('{"a":1,\n "model":2 }', '{"a":1}'),
        ('{"model":1,"model":2,"a":3,"model":4}', '{"a":3}'),
        (r'{"mod\u0065l":1,"a":"\\"}', r'{"a":"\\"}'),
        ('{"a":{"model":1},"b":["model",2]}', '{"a":{"model":1},"b":["model",2]}'),
        ("{ }", "{ }"),
    ],
)
def test_examples_of_leaving_out(text: str, rest: str) -> None:
    assert without_member(encoded(text), "model") == encoded(rest)


# has_more_tokens_than

OUTSIDE = re.compile(r'[",{\[]')


@_property
@given(st.recursive(st.text(max_size=9) | st.integers(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)))
def test_tokens_are_counted_outside_strings(value: object) -> None:
    text = json.dumps(value)
    tokens = len(OUTSIDE.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '"', text)))
    assert has_more_tokens_than(text.encode(), tokens - 1)
    assert not has_more_tokens_than(text.encode(), tokens)


@pytest.mark.parametrize("item", [b"[]", b"{}", b'""', b"1", b'{"a":"b"}', rb'"\""'])
def test_many_of_anything_are_too_many(item: bytes) -> None:
    text = b"[" + b",".join([item] * 1000) + b"]"
    assert has_more_tokens_than(text, 999)
    assert not has_more_tokens_than(json.dumps([text.decode() * 9]).encode(), 9)


@_property
@given(st.text(st.sampled_from('\\u"ad8c01Df'), max_size=40))
def test_only_surrogates_are_blotted_out(text: str) -> None:
    raw = text.encode()
    expected = re.sub(
        rb"\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", lambda found: b"?" if len(found[0]) == 6 else found[0], raw
    )
    assert without_surrogate_escapes(raw) == expected


# nests_deeper_than


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(inner) for inner in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(inner) for inner in value), default=0)
    return 0


def deepest(text: str) -> int:
    """Of all members of an object, those of one name too: each is text that nests."""

    def all_of(pairs: list[tuple[str, Any]]) -> list[Any]:
        return [value for _, value in pairs]

    return depth(json.loads(text, object_pairs_hook=all_of))


@_property
@given(_value, st.integers(0, 6))
def test_depth_agrees_with_a_parser(text: str, limit: int) -> None:
    assert nests_deeper_than(encoded(text), limit) is (deepest(text) > limit)
    spacious = encoded(text) + b" " * 32 * (
        len(text) + 1
    )  # so few quotes for its length that they are looked at singly
    assert nests_deeper_than(spacious, limit) is (deepest(text) > limit)


@pytest.mark.parametrize(("depth_of_text", "deeper"), [(255, False), (256, False), (257, True), (100_000, True)])
def test_the_limit_itself_is_allowed(depth_of_text: int, deeper: bool) -> None:
    assert nests_deeper_than(b"[" * depth_of_text + b"]" * depth_of_text, 256) is deeper
    assert nests_deeper_than(b'{"a":' * depth_of_text + b"1" + b"}" * depth_of_text, 256) is deeper


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert not nests_deeper_than(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 3)
    assert nests_deeper_than(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 2)


@pytest.mark.parametrize(
    "text", [rb'["[[[["]', rb'["\"[[[["]', rb'["\\","[[[["]', rb'{"[[[[":"{{{{"}', rb'["\\\"[[[["]']
)
def test_brackets_inside_strings_do_not_count(text: bytes) -> None:
    assert not nests_deeper_than(text, 1)
    assert not nests_deeper_than(text + b" " * 1024, 1)


@pytest.mark.parametrize("start", [rb'"\\"', rb'"\""', rb'"\\\""', rb'"\\\\"', rb'"[[["', rb'""'])
@pytest.mark.parametrize("space", [b"", b" " * 1024])
def test_brackets_behind_a_string_do(start: bytes, space: bytes) -> None:
    text = b"[" + start + b",[0]]" + space
    assert nests_deeper_than(text, 1)
    assert not nests_deeper_than(text, 2)


@pytest.mark.parametrize("space", [b"", b" " * 1024])
def test_what_follows_a_quote_without_an_end_is_no_nesting(space: bytes) -> None:
    assert not nests_deeper_than(b'["' + b"[" * 300 + space, 256)


@pytest.mark.timeout(4)
def test_a_string_without_an_end_takes_linear_time() -> None:
    """Anyone can send such a body: half a megabyte of it must take milliseconds, not half an hour."""
    hostile = b"[]" * 300 + b'"' + b'\\"' * 250_000
    nests_deeper_than(hostile, 256)


# without_surrogate_escapes

_plain_piece = st.one_of(
    st.characters(exclude_characters="\\", exclude_categories=["Cs"]),
    st.sampled_from([r"\\", r"\"", r"\n", r"\/", r"\u0041", r"\ud7ff", r"\uE000", r"\uFFFF", r"\\ud800", r"\\\\uDFFF"]),
)
_surrogate_piece = st.builds(
    lambda code, spelling: "\\u" + spelling(f"{code:04x}"),
    st.integers(0xD800, 0xDFFF),
    st.sampled_from([str.lower, str.upper]),
)


@_property
@given(st.lists(_plain_piece, max_size=20).map("".join))
@example(r"\\ud800")
@example(r"\\\\ud800")
def test_other_text_is_left_alone(text: str) -> None:
    assert without_surrogate_escapes(encoded(text)) == encoded(text)


@_property
@given(st.lists(_plain_piece | _surrogate_piece, max_size=20))
def test_every_surrogate_escape_becomes_a_question_mark(pieces: list[str]) -> None:
    expected = "".join(
        "?" if piece[:3].lower() == r"\ud" and piece[3] in "89abcdefABCDEF" else piece for piece in pieces
    )
    assert without_surrogate_escapes(encoded("".join(pieces))) == encoded(expected)


@_property
@given(_value)
def test_what_comes_out_parses_and_holds_no_surrogates(text: str) -> None:
    clean = without_surrogate_escapes(encoded(text))
    json.dumps(json.loads(clean), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (rb'"\ud800"', b'"?"'),
        (rb'"\uDFFF"', b'"?"'),
        (rb'"\ud7ff\ue000"', rb'"\ud7ff\ue000"'),
        (rb'"\\ud800"', rb'"\\ud800"'),
        (rb'"\\\ud800"', rb'"\\?"'),
        (rb'"\ud83d\ude00"', b'"??"'),
        (b"", b""),
        (b"\\", b"\\"),
        (rb"\ud80", rb"\ud80"),
        (b"\xff\\ud800", b"\xff?"),
    ],
)
def test_examples_of_surrogates(text: bytes, clean: bytes) -> None:
    assert without_surrogate_escapes(text) == clean


# add_member


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        (b"{}", b'{"a":[1]}'),
        (b" {\n} ", b' {"a":[1]\n} '),
        (b'{"b":{}}', b'{"a":[1],"b":{}}'),
        (b'\t{ "b" : 1e400, "b":"\xc5\xbe{"}\n', b'\t{"a":[1], "b" : 1e400, "b":"\xc5\xbe{"}\n'),
    ],
)
def test_a_member_is_added_and_every_other_byte_stays(text: bytes, changed: bytes) -> None:
    assert add_member(text, "a", b"[1]") == changed


def test_an_added_member_s_name_is_escaped() -> None:
    assert add_member(b"{}", 'a"\u017e', b"1") == b'{"a\\"\\u017e":1}'


def test_member_names_are_those_of_the_top_level_as_often_as_they_come() -> None:
    text = rb' { "a" : 1, "b":{"c":"d,\"e\":"},"a":[{"f":1}], "g\u0068\ud800" : "i:j", "\"":{} , "":null}'
    assert member_names(text) == ["a", "b", "a", "gh\ud800", '"', ""]
    assert member_names(b"{}") == []
    assert member_names('{"é\u017f": 1}'.encode()) == ["é\u017f"]
