"""Counting limits together with other gateways: what is asked of whoever counts for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.infrastructure.limits.wanted import Place, Wanted
from proxy.infrastructure.limits.windows import Reading


class CountsLost(Exception):  # they are lost
    """There was no answer. `is_late`: there was none in time, so what was asked may have been counted.

    `refusal` is what the server said instead.
    """

    def __init__(self, reason: str, *, is_late: bool, refusal: str | None = None) -> None:
        super().__init__(reason)
        self.is_late = is_late
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Answer:
    """Which windows and places have no room; if none, all is taken."""

    full_takes: Sequence[int]
    full_places: Sequence[Place]
    readings: Sequence[Reading]


class SharedCounts(Protocol):
    """What requests are told of waits for no answer: `leave`, `correct` and `count` are sent by the next `tell`."""

    @property
    def waiting(self) -> int:
        """How much is still to be told."""
        ...

    async def enter(self, wanted: Wanted, member: str) -> Answer:
        """Take all of it or nothing. Raises CountsLost."""
        ...

    def hold(self, member: str, places: Sequence[Place]) -> None:
        """The request runs: its places are kept until `leave`."""
        ...

    def leave(self, member: str, places: Sequence[Place]) -> None:
        """Also for one of which it is not known whether it came in."""
        ...

    def correct(self, key: str, started: float, more: float) -> None:
        """So much more was used of the window that began then."""
        ...

    def count(self, key: str, used: float) -> None:
        """So much was used while nobody was asked."""
        ...

    async def probe(self, most_seconds: float | None = None) -> None:
        """Whether there is an answer in that time, or in that of a request. Raises CountsLost."""
        ...

    async def tell(self) -> None:
        """What waits to be told; what cannot be told now waits on. Raises CountsLost."""
        ...

    async def renew(self) -> None:
        """Keep the places of those that still run; also after they have been forgotten. Raises CountsLost."""
        ...

    async def close(self) -> None: ...
