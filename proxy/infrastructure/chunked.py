"""Chunked transfer coding (RFC 9112, section 7.1), as far as it can be read without a parser's state.

A provider that streams sends each event as one chunk, and most reads of its connection bring whole chunks. Those can be
unwrapped at once. Everything else (halves of chunks, extensions, the last chunk) is for aiohttp's parser, which misses
nothing: between two whole chunks its state is the same.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_END = b"\r\n"


def unwrapped(data: bytes) -> bytes | None:
    """What is in these chunks, if they are whole, plain, and not the last."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        after = _after_chunk(data, at)
        if after is None:
            return None
        start, at = after
        pieces.append(data[start : at - len(_END)])
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def ends_between_chunks(body: bytes) -> bool:
    """Whether these are whole chunks and nothing else, not the last one among them."""
    at = 0
    while at < len(body):
        after = _after_chunk(body, at)
        if after is None:
            return False
        _, at = after
    return True


def _after_chunk(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the contents of the chunk at that place begin, and where the next chunk does."""
    size = _SIZE.match(data, at)
    if size is None:
        return None
    start, length = size.end(), int(size[1], 16)
    end = start + length
    if length == 0 or data[end : end + len(_END)] != _END:
        return None
    return start, end + len(_END)
