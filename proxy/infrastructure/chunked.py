"""Chunked transfer coding (RFC 9112, section 7.1), as far as it can be read without a parser's state.

A provider that streams sends each event as one chunk, and most reads of its connection bring whole chunks. Those can be
unwrapped at once. Everything else (torn chunks, extensions, the last chunk) is for aiohttp's parser, which misses
nothing: between two whole chunks its state is the same.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_PART_OF_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}\r?\Z")
LONGEST_SIZE_LINE = 10
_CR, _LF = b"\r\n"
_LAST = b"0\r\n\r\n"
_MANY_BYTES = 1024
_MOST_KNOWN = 4096
_known: dict[bytes, int] = {}  # sizes as they are written: a look costs a third of reading one


def unwrapped(data: bytes) -> tuple[bytes, int]:
    """What is in the chunks that the data begins with, and where they end: those that are whole, plain, not the last.

    Nothing and 0 if the first one is none of that.
    """
    length, at = len(data), 0
    pieces: list[bytes] = []
    if length > _MANY_BYTES:
        end = length - len(_LAST) if data.endswith(_LAST) else length
        contents = _unwrapped_at_once(data[:end])
        if contents:
            return contents, end
    while True:
        line_end = data.find(b"\r\n", at, at + LONGEST_SIZE_LINE)
        if line_end < 0:
            break
        size = _known.get(data[at:line_end]) or _read_size(data, at)
        start = line_end + 2
        end = start + size
        if size == 0 or end + 2 > length or data[end] != _CR or data[end + 1] != _LF:
            break
        pieces.append(data[start:end])
        at = end + 2
        if at == length:
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces), at


def _unwrapped_at_once(data: bytes) -> bytes:
    """What is in these chunks, if that is all that they are and no line in them ends as theirs do; else nothing.

    Twice as fast for many as one after the other.
    """
    lines = data.split(b"\r\n")
    if lines.pop():
        return b""
    contents = lines[1::2]
    return b"".join(contents) if list(map(_known.get, lines[::2])) == list(map(len, contents)) else b""


@lru_cache(maxsize=_MOST_KNOWN)
def is_size(text: bytes, size: int) -> bool:
    """Whether this is how a chunk of that many bytes begins, written as usual. Of 0 bytes none does but the last."""
    try:
        # What int() takes besides digits (signs, spaces, underscores) leaves too few places for a number so large.
        return len(text) == (size.bit_length() + 3) // 4 and int(text, 16) == size > 0
    except ValueError:
        return False


def bytes_missing(data: bytes) -> int:
    """How many are still to come of the chunk that begins the data; 0 if that is whole, the last, or not plain."""
    size = _SIZE.match(data)
    if size is None or (length := int(size[1], 16)) == 0:
        return 0
    return max(0, size.end() + length + 2 - len(data))


def may_become_size(data: bytes) -> bool:
    """Whether this is the beginning of a chunk, torn before the end of its first line."""
    return _PART_OF_SIZE.match(data) is not None


def _read_size(data: bytes, at: int) -> int:
    """The size that the line there says, 0 if it says anything else."""
    found = _SIZE.match(data, at)
    if found is None:
        return 0
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    size = _known[found[1]] = int(found[1], 16)
    return size
