"""How far a spool has been booked, for whoever adopts it.

Booking twice is harmless while the rows are there. When retention has dropped them, a row that is booked once more
would be counted once more. The file beside the segments says which ones have been booked.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from proxy.infrastructure.ledger.framing import HEADER_BYTES, framed, payload_at

_FILE = "booked"
_MARK = struct.Struct("<QQ")  # the number of the segment, and the place in it up to which outcomes are booked


class Progress:
    """Written by the spool's owner, after each batch."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT, 0o600)

    def note(self, segment: Path, place: int) -> None:
        os.pwrite(self._descriptor, framed(_MARK.pack(_number(segment), place)), 0)

    def close(self) -> None:
        os.close(self._descriptor)


class Booked:
    """Read by who adopts the spool; without a readable mark nothing is known to be booked."""

    def __init__(self, directory: Path) -> None:
        try:
            payload = payload_at((directory / _FILE).read_bytes()[: HEADER_BYTES + _MARK.size], 0)
        except FileNotFoundError:
            payload = None
        self._mark: tuple[int, int] = _MARK.unpack(payload) if payload is not None else (0, 0)

    def includes(self, segment: Path, end: int) -> bool:
        """Whether the record that ends there has been booked."""
        return (_number(segment), end) <= self._mark


def _number(segment: Path) -> int:
    return int(segment.stem)
