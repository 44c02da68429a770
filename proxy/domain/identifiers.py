"""Identifiers of which later ones are greater, a good many from one question to the kernel.

They are UUIDs of version 7 (RFC 9562, 5.7): a time, and 74 random bits. Whoever keeps them in an index appends where
random ones would go anywhere: of what PostgreSQL does for a row of the ledger, that saves up to a seventh. Their time
is that of the question, so that of a process without work they may be older than what they name; nothing reads it.
`uuid.uuid4` asks the kernel for each, and checks what it has made itself: 2 µs of the 40 that a request's books take.
"""

from __future__ import annotations

import os
import time
from uuid import UUID, SafeUUID

_AT_ONCE = 64
_BYTES = 16
_NANOSECONDS = 1_000_000  # in a millisecond, which the time counts
_TIME_AT = 80
_RANDOM_BITS = (1 << _TIME_AT) - 1 & ~(0xF << 76) & ~(0x3 << 62)
_VERSION_7 = 0x7 << 76 | 0x2 << 62  # and variant 1
_numbers: list[int] = []  # the greatest first
_set_number = UUID.int.__set__  # type: ignore[attr-defined, misc]  # slots: the class refuses to be written to otherwise
_set_safety = UUID.is_safe.__set__  # type: ignore[attr-defined, misc]


def new_uuid() -> UUID:
    """An UUID of version 7. Safe in threads (each number is taken once) and after a fork (the child draws its own)."""
    made = object.__new__(UUID)
    _set_number(made, _number())
    _set_safety(made, SafeUUID.unknown)
    return made


def new_hex() -> str:
    """The 32 digits of such an UUID."""
    return f"{_number():032x}"


def _number() -> int:
    while True:
        try:
            return _numbers.pop()
        except IndexError:
            _draw()


def _draw() -> None:
    drawn, begin = os.urandom(_AT_ONCE * _BYTES), time.time_ns() // _NANOSECONDS << _TIME_AT | _VERSION_7
    numbers = (int.from_bytes(drawn[place : place + _BYTES], "big") for place in range(0, len(drawn), _BYTES))
    _numbers.extend(sorted((number & _RANDOM_BITS | begin for number in numbers), reverse=True))


os.register_at_fork(after_in_child=_numbers.clear)
