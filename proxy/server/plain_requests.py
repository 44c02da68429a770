"""Telling where a request begins and ends without a parser, where that is beyond doubt."""

from __future__ import annotations

import re
from typing import Final

from aiohttp.streams import StreamReader

_HEAD_END: Final = b"\r\n\r\n"
# Header lines of the plainest kind, in lower case: nothing that is about framing, or about what follows the request.
_LINES: Final = (
    rb"(?:(?!transfer-encoding|content-length|upgrade|expect|connection: (?!keep-alive\r))[a-z0-9_-]++:[\t -~]*+\r\n)*+"
)
_PLAIN: Final = re.compile(
    rb"post (?:/v1)?/chat/completions http/1\.1\r\n" + _LINES + rb"content-length: ?(\d{1,9})\r\n" + _LINES + rb"\r\n"
)
_AUTHORIZATION: Final = b"\r\nauthorization:"


def plain_head(data: bytes) -> bytes | None:
    """The head, in lower case, if the data is one whole request for a completion and nothing else; None if in doubt.

    Everybody must agree on where it ends, or answers would go to the wrong requests of a connection that a proxy shares
    among clients: so one length, in digits, and no other framing.
    """
    end = data.find(_HEAD_END) + len(_HEAD_END)
    head = data[:end].lower()
    found = _PLAIN.fullmatch(head)
    return None if found is None or len(data) != end + int(found[1]) else head


def authorization_in(data: bytes, head: bytes) -> str | None:
    """The first Authorization header of a plain head of that data."""
    begin = head.find(_AUTHORIZATION) + len(_AUTHORIZATION)
    if begin < len(_AUTHORIZATION):
        return None
    return data[begin : head.index(b"\r\n", begin)].decode("ascii").strip()


def is_exactly(data: bytes, payload: StreamReader) -> bool:
    """Whether data from which one request was parsed, with this body, ends where the request does."""
    return payload.is_eof() and data.find(_HEAD_END) + len(_HEAD_END) + payload.total_bytes == len(data)
