"""Telling where a request begins and ends without a parser, where that is beyond doubt."""

from __future__ import annotations

import re
from typing import Final

from aiohttp.streams import StreamReader

_HEAD_END: Final = b"\r\n\r\n"
# Header lines of the plainest kind, in lower case: nothing that is about framing, or about what follows the request.
_TELLING: Final = rb"transfer-encoding|content-length|upgrade|expect|connection:(?! ?keep-alive\r)"
_LINES: Final = rb"(?:(?!" + _TELLING + rb")[a-z0-9_-]++:[\t -~]*+\r\n)*+"
_PLAIN: Final = re.compile(
    rb"post (?:/v1)?/chat/completions http/1\.1\r\n" + _LINES + rb"content-length: ?(\d{1,9})\r\n" + _LINES + rb"\r\n"
)
_AUTHORIZATION: Final = b"\r\nauthorization:"


def head_of(data: bytes) -> bytes:
    """Data that begins with the same head, and is as long, is a plain request if this one is."""
    return data[: data.find(_HEAD_END) + len(_HEAD_END)]


def is_plain(data: bytes) -> bool:
    """Whether the data is, beyond doubt, one whole request for a completion and nothing else.

    Everybody must agree on where it ends, or answers would go to the wrong requests of a connection that a proxy shares
    among clients: so one length, in digits, and no other framing.
    """
    head = head_of(data)
    found = _PLAIN.fullmatch(head.lower())
    return found is not None and len(data) == len(head) + int(found[1])


def authorization_in(data: bytes) -> str | None:
    """The first Authorization header of a plain request."""
    head = head_of(data).lower()
    begin = head.find(_AUTHORIZATION) + len(_AUTHORIZATION)
    if begin < len(_AUTHORIZATION):
        return None
    return data[begin : head.index(b"\r\n", begin)].decode("ascii").strip()


def is_exactly(data: bytes, payload: StreamReader) -> bool:
    """Whether data from which one request was parsed, with this body, ends where the request does."""
    return payload.is_eof() and data.find(_HEAD_END) + len(_HEAD_END) + payload.total_bytes == len(data)
