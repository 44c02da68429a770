"""Looking into JSON text, and changing one member of it, without parsing and writing all the rest."""

from __future__ import annotations

import json
import re
from typing import Any

# A string that has no end matches too: else each quote in it would be tried as another beginning, in quadratic time.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_BRACKETS = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_TOKENS = re.compile(_STRING + rb"|[{}\[\]:,]", re.DOTALL)
_ESCAPES = re.compile(rb"\\(?:u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_SURROGATE_ESCAPE_LENGTH = 6
_MOST_DIGITS = 4000


def nests_deeper_than(text: bytes, limit: int) -> bool:
    """Whether arrays and objects nest more than `limit` deep. Needs no stack, so it can be asked before parsing."""
    if text.count(b"{") + text.count(b"[") <= limit:
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


def without_surrogate_escapes(text: bytes) -> bytes:
    r"""The text with each `\ud800`-`\udfff` escape replaced by `?`, for parsers that refuse lone surrogates.

    JSON allows them (RFC 8259, section 8.2) and models do send them. For looking only: what is relayed is the original.
    """

    def harmless(escape: re.Match[bytes]) -> bytes:
        found = escape.group()
        return b"?" if len(found) == _SURROGATE_ESCAPE_LENGTH else found

    return _ESCAPES.sub(harmless, text)


def look_into(text: bytes) -> Any:
    """The parsed value, for looking only: numbers of thousands of digits, which Python refuses, come as infinity."""
    return json.loads(text, parse_int=_int_or_infinity)


def _int_or_infinity(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


def replace_member(text: bytes, key: str, value: bytes) -> bytes:
    """The JSON object `text` with the value of the top-level member `key` replaced; every other byte stays.

    `text` must be valid JSON and `value` the JSON to put there. A key that occurs twice is replaced twice.

    Raises:
        KeyError: there is no such member.
    """
    pieces: list[bytes] = []
    copied_to = 0
    for start, end in _member_values(text, key):
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


def _member_values(text: bytes, key: str) -> list[tuple[int, int]]:
    """Start and end of the values of the top-level member `key`, surrounding white space left out."""
    found: list[tuple[int, int]] = []
    depth = 0
    name: bytes | None = None
    value_start: int | None = None
    for token in _TOKENS.finditer(text):
        first = token.group()[:1]
        if depth == 1:
            if first == b":":
                value_start = token.end()
            elif first in b",}":
                if value_start is not None and name is not None and json.loads(name) == key:
                    value = text[value_start : token.start()]
                    start = value_start + len(value) - len(value.lstrip())
                    found.append((start, start + len(value.strip())))
                name = value_start = None
            elif first == b'"' and value_start is None:
                name = token.group()
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
    return found
