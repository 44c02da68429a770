"""Taking a body that has all come out of the reader that holds it: a request's, and an upstream's answer's."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Reader(Protocol):
    """aiohttp's StreamReader, as far as it is asked here; tests/http/test_aiohttp_internals.py fails if that moves."""

    total_bytes: int
    _buffer: deque[bytes]
    _buffer_offset: int
    _exception: BaseException | None

    def read_nowait(self, n: int = -1) -> bytes: ...


def whole_body(reader: Reader) -> bytes:
    """What a reader that has come to its end holds. In one piece it is taken out: nobody asks the reader again.

    Raises what reading raises.
    """
    is_plain = reader.total_bytes and reader._exception is None and not reader._buffer_offset  # noqa: SLF001
    if is_plain and len(reader._buffer) == 1:  # noqa: SLF001
        return reader._buffer.popleft()  # noqa: SLF001
    return reader.read_nowait()
