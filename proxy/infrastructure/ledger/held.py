"""Outcomes that are noted in the spool and still in memory: they are booked without being read back.

Reading a row back (a system call, a checksum, a parser) costs a twentieth of a request. The spool stays what survives;
this only spares the owner's way through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from proxy.infrastructure.ledger.segment import Segment
from proxy.infrastructure.persistence.rows import LedgerRow


class Held(NamedTuple):
    """A row, and where its record ends."""

    row: LedgerRow
    segment: Segment
    end: int


class HeldRows:
    """The newest of a spool's outcomes, at most so many: while nobody books them, all go, and later ones are held."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: LedgerRow, segment: Segment, end: int) -> None:
        if len(self._rows) >= self._most:
            self._rows.clear()
        self._rows.append(Held(row, segment, end))

    def oldest(self, limit: int) -> list[Held]:
        return list(islice(self._rows, limit))

    def drop(self, held: Sequence[Held]) -> None:
        """These were the oldest, and are booked; they may have gone meanwhile."""
        if held and self._rows and self._rows[0] is held[0]:
            for _ in held:
                self._rows.popleft()
