"""YAML, read with its lines."""

from __future__ import annotations

from decimal import Decimal

import pytest

from proxy.config.document import read_document


def test_every_value_has_the_line_of_its_key() -> None:
    document = read_document("a: 1\nb:\n  - x\n  -\n    c: >\n      long\n      text\n")
    assert document.data == {"a": 1, "b": ["x", {"c": "long text\n"}]}
    assert document.lines == {(): 1, ("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 5, ("b", 1, "c"): 5}
    assert document.line_of(("b", 1, "missing", "deeper")) == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("2.50", Decimal("2.50")),
        ("1e-7", Decimal("1e-7")),
        ("-.5", Decimal("-0.5")),
        ("2.50000000000000000000000000001", Decimal("2.50000000000000000000000000001")),
        ("-.inf", Decimal("-Infinity")),
        ("True", True),
        ("~", None),
        ("", None),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ("!!float 5", Decimal(5)),
    ],
)
def test_plain_words_are_those_of_yaml_1_2_and_decimals_are_exact(text: str, value: object) -> None:
    document = read_document(f"key: {text}")
    assert document.problems == []
    assert document.data["key"] == value
    assert type(document.data["key"]) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read_document("4: a\n1.50: b\ntrue: c\n").data == {"4": "a", "1.50": "b", "true": "c"}


def test_anchors_and_merges_keep_the_lines_where_values_are_written() -> None:
    text = "base: &base\n  a: 1\n  b: 2\nmore: &more {b: 3, c: 4}\none:\n  b: 5\n  <<: [*base, *more]\n"
    document = read_document(text)
    assert document.problems == []
    assert document.data["one"] == {"a": 1, "b": 5, "c": 4}
    assert [document.lines["one", key] for key in "abc"] == [2, 6, 4]


def test_the_first_of_two_merged_mappings_counts() -> None:
    assert read_document("a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}").data["c"] == {"x": 1}
    assert read_document("a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: *a\n  <<: *b").data["c"] == {"x": 1}


def test_a_key_given_twice_is_refused_once_however_often_it_is_merged() -> None:
    document = read_document("a: &a\n  x: 1\n  x: 2\nb: *a\nc: {<<: *a}\n")
    assert [(problem.line, problem.path, problem.message) for problem in document.repeated] == [
        (3, ("a", "x"), "is given twice, first in line 2")
    ]
    assert (document.data, document.problems) == ({name: {"x": 2} for name in "abc"}, [])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a: [\n", 2, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "tabs"),
        ("a:\n  b: {c: ${NAME}}\n", 2, "must be in quotes"),
        ("a: *nowhere\n", 1, "nowhere"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a: 1\nb: \x00\n", 2, "character"),
        ("a: !env NAME\n", 1, "the tag !env is not known"),
        ("a: !!python/object:os.system x\n", 1, "the tag !!python/object:os.system is not known"),
        ("a: !!int one\n", 1, "is no int"),
        ("a: !!set {x}\n", 1, "the tag !!set is not known"),
        ("? [a]\n: 1\n", 1, "a key must be text"),
        ("a: 1\n<<: 2\n", 2, "`<<` takes a mapping"),
        ("a: &a\n  b: *a\n", 1, "contains itself"),
        ("a: &a\n  <<: *a\n", 1, "contains itself"),
        ("a: " + "[" * 5000, 1, "nested too deeply"),
        ("a: " + "9" * 500, 1, "is no int"),
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
    ],
)
def test_what_is_wrong_has_its_line(text: str, line: int, said: str) -> None:
    (problem,) = read_document(text).problems
    assert problem.line == line
    assert said in problem.message


def test_syntax_errors_have_a_column_and_repeat_no_value() -> None:
    (problem,) = read_document("key: sk-secret\n  more: [\n").problems
    assert (problem.line, problem.column) == (2, 7)
    assert "sk-secret" not in problem.message


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = read_document("\n".join(lines)).problems
    assert problem.message == "more than 200000 values"
