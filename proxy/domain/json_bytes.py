"""Looking into JSON text, and changing one member of it, without parsing and writing all the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

# A string that has no end matches too: else each quote in it would be tried as another beginning, in quadratic time.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_BRACKETS = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_TOKENS = re.compile(_STRING + rb"|[{}\[\]:,]", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_SURROGATE_ESCAPES = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_ESCAPED_BACKSLASH, _NO_JSON = b"\\\\", b"\0\0"
_MARKS = (b'"', b",", b"{", b"[")
_MOST_DIGITS = 4000
_BACKSLASH = ord("\\")
_BYTES_PER_QUOTE = 32


def has_more_tokens_than(text: bytes, limit: int) -> bool:
    """Whether it has more strings, commas and opening brackets, those within strings left out.

    Going through tokens one by one takes half a microsecond for each: a body of many megabytes may have millions. Takes
    no longer than that for `limit` of them, and for texts in long strings hardly any time.
    """
    if sum(map(text.count, _MARKS)) <= limit:
        return False
    outside, strings = _STRINGS.subn(b'"', text, limit + 1)
    return strings > limit or sum(map(outside.count, _MARKS)) > limit


def nests_deeper_than(text: bytes, limit: int) -> bool:
    """Whether arrays and objects nest more than `limit` deep. Needs no stack, so it can be asked before parsing."""
    if len(text) <= limit or _opens_at_most(text, limit) or _opens_at_most_outside_strings(text, limit):
        return False
    depth = 0
    for token in _BRACKETS.finditer(text):
        first = token.group()[:1]
        if first in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif first in b"}]":
            depth -= 1
    return False


def _opens_at_most(text: bytes, limit: int) -> bool:
    """Whether there are no more opening brackets than `limit`. Searching is several times faster than counting."""
    left = limit
    for bracket in (b"{", b"["):
        at = text.find(bracket)
        while at >= 0:
            if left == 0:
                return False
            left -= 1
            at = text.find(bracket, at + 1)
    return True


def _opens_at_most_outside_strings(text: bytes, limit: int) -> bool:
    """The same, strings left out: prompts about code are full of brackets. False also if quotes are too many for this
    to be faster than taking the text apart."""
    left, quotes_left = limit, len(text) // _BYTES_PER_QUOTE
    start, in_string = 0, False
    at = text.find(b'"')
    while at >= 0:
        quotes_left -= 1
        if quotes_left < 0:
            return False
        if not in_string:
            left -= text.count(b"{", start, at) + text.count(b"[", start, at)
            if left < 0:
                return False
            in_string = True
        elif not _is_escaped(text, at):
            start, in_string = at + 1, False
        at = text.find(b'"', at + 1)
    return in_string or left >= text.count(b"{", start) + text.count(b"[", start)


def _is_escaped(text: bytes, at: int) -> bool:
    """Whether the quote there, inside a string, has an odd number of backslashes before it."""
    before = at - 1
    while text[before] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 0


def without_surrogate_escapes(text: bytes) -> bytes:
    r"""The text with each `\ud800`-`\udfff` escape replaced by `?`, for parsers that refuse lone surrogates.

    JSON allows them (RFC 8259, section 8.2) and models do send them. For looking only: what is relayed is the original.
    Text with NUL bytes is no JSON, and stays.
    """

    if b"\0" in text:
        return text
    apart = text.replace(_ESCAPED_BACKSLASH, _NO_JSON)  # what follows them is no escape
    return _SURROGATE_ESCAPES.sub(b"?", apart).replace(_NO_JSON, _ESCAPED_BACKSLASH)


def look_into(text: bytes) -> Any:
    """The parsed value, for looking only: numbers of thousands of digits, which Python refuses, come as infinity."""
    return _LOOKING.decode(text.decode("utf-8", "surrogatepass"))


def _int_or_infinity(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


_LOOKING = json.JSONDecoder(parse_int=_int_or_infinity)  # making one takes longer than what it is asked for here


def member_names(text: bytes) -> list[str]:
    """The names of the top level's members, in order, as often as they occur. `text` must be a valid JSON object."""
    names = (member.name for member in _members(text))
    return [str(json.loads(name)) if b"\\" in name else name[1:-1].decode() for name in names]


def replace_member(text: bytes, key: str, value: bytes) -> bytes:
    """The JSON object `text` with the value of the top-level member `key` replaced; every other byte stays.

    `text` must be valid JSON and `value` the JSON to put there. A key that occurs twice is replaced twice.

    Raises:
        KeyError: there is no such member.
    """
    pieces: list[bytes] = []
    copied_to = 0
    for member in _members(text):
        if member.is_named(key):
            start, end = member.value(text)
            pieces += (text[copied_to:start], value)
            copied_to = end
    if not pieces:
        raise KeyError(key)
    return b"".join((*pieces, text[copied_to:]))


def add_member(text: bytes, key: str, value: bytes) -> bytes:
    """The JSON object `text` with one more member, at its beginning; every other byte stays.

    `text` must be a valid JSON object without a member `key`, and `value` the JSON to put there.
    """
    inside = text.index(b"{") + 1
    comma = b"" if text[inside:].lstrip().startswith(b"}") else b","
    return b"".join((text[:inside], json.dumps(key).encode(), b":", value, comma, text[inside:]))


def without_member(text: bytes, key: str) -> bytes:
    """The JSON object `text` without the top-level member `key`, however often it occurs; all else stays.

    `text` must be valid JSON. Without such a member it is returned as it is.
    """
    members = list(_members(text))
    kept = [text[member.start : member.end] for member in members if not member.is_named(key)]
    if len(kept) == len(members):
        return text
    return text[: members[0].start] + b",".join(kept) + text[members[-1].end :]


class _Member(NamedTuple):
    """Where a member of the top level is: from behind a comma or the first bracket to before the next."""

    name: bytes
    start: int
    value_start: int
    end: int

    def is_named(self, key: str) -> bool:
        return bool(json.loads(self.name) == key)

    def value(self, text: bytes) -> tuple[int, int]:
        """Start and end of the value, surrounding white space left out."""
        value = text[self.value_start : self.end]
        start = self.value_start + len(value) - len(value.lstrip())
        return start, start + len(value.strip())


def _members(text: bytes) -> Iterator[_Member]:
    depth = start = 0
    name: bytes | None = None
    value_start: int | None = None
    for token in _TOKENS.finditer(text):
        first = token.group()[:1]
        if depth == 1:
            if first == b":":
                value_start = token.end()
            elif first in b",}":
                if value_start is not None and name is not None:
                    yield _Member(name, start, value_start, token.start())
                name = value_start = None
                start = token.end()
            elif first == b'"' and value_start is None:
                name = token.group()
        if first in b"{[":
            depth += 1
            if depth == 1:
                start = token.end()
        elif first in b"}]":
            depth -= 1
