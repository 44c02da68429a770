"""Random identifiers, a good many from one question to the kernel.

`uuid.uuid4` asks the kernel for each, and checks what it has made itself: 2 µs of the 40 that a request's books take.
"""

from __future__ import annotations

import os
from uuid import UUID, SafeUUID

_AT_ONCE = 64
_BYTES = 16
_KEPT_BITS = (1 << 128) - 1 & ~(0xF << 76) & ~(0x3 << 62)
_VERSION_4 = 0x4 << 76 | 0x2 << 62  # of RFC 4122: version 4 (random), variant 1
_numbers: list[int] = []
_set_number = UUID.int.__set__  # type: ignore[attr-defined, misc]  # slots: the class refuses to be written to otherwise
_set_safety = UUID.is_safe.__set__  # type: ignore[attr-defined, misc]


def random_uuid() -> UUID:
    """An UUID of version 4. Safe in threads (each number is taken once) and after a fork (the child draws its own)."""
    made = object.__new__(UUID)
    _set_number(made, _number())
    _set_safety(made, SafeUUID.unknown)
    return made


def random_hex() -> str:
    """The 32 digits of such an UUID."""
    return f"{_number():032x}"


def _number() -> int:
    while True:
        try:
            return _numbers.pop()
        except IndexError:
            _draw()


def _draw() -> None:
    drawn = os.urandom(_AT_ONCE * _BYTES)
    _numbers.extend(
        int.from_bytes(drawn[place : place + _BYTES], "big") & _KEPT_BITS | _VERSION_4
        for place in range(0, len(drawn), _BYTES)
    )


os.register_at_fork(after_in_child=_numbers.clear)
