"""Limits as this process alone knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from proxy.infrastructure.limits.shares import Share
from proxy.infrastructure.limits.wanted import Place, Take, Wanted
from proxy.infrastructure.limits.windows import WINDOW_SECONDS, Reading, Windows

Counted = tuple[float, int]  # when its window began, and what was counted in it


class LocalCounts:
    """Windows and places of this process. It goes on counting while Valkey decides, so that it knows when it must."""

    def __init__(self, clock: Callable[[], float], length_seconds: float = WINDOW_SECONDS) -> None:
        self.share = Share()
        self.windows = Windows(clock, length_seconds)
        self.untold = Windows(clock, length_seconds)  # the part of it that Valkey has not counted: it was away
        self._taken: Counter[str] = Counter()

    @property
    def keys(self) -> int:
        """How many things are counted."""
        return len(self.windows) + len(self._taken)

    def read_one(self, take: Take) -> Reading:
        return self.windows.read(take.key, self.share.of(take.limit))

    def read(self, takes: Sequence[Take]) -> list[tuple[Take, Reading]]:
        return [(take, self.windows.read(take.key, self.share.of(take.limit))) for take in takes]

    def full(self, places: Sequence[Place]) -> list[Place]:
        return [place for place in places if self._taken[place.key] >= self.share.of(place.limit)]

    def free(self, place: Place) -> int:
        return max(0, self.share.of(place.limit) - self._taken[place.key])

    def take(self, wanted: Wanted) -> list[Counted]:
        """Count all of it, whether there is room or not."""
        for place in wanted.places:
            self._taken[place.key] += 1
        counted = []
        for take in wanted.takes:
            cost = min(take.estimate, self.share.of(take.limit))
            counted.append((self.windows.add(take.key, cost), cost))
        return counted

    def enter(self, wanted: Wanted) -> Sequence[Reading] | None:
        """Takes all of it, and tells how the windows stand then; nothing, and None, if anything has no room."""
        windows, share = self.windows, self.share
        now = windows.now()
        for take in wanted.takes:
            limit = share.of(take.limit)
            if not windows.has_room(take.key, limit, min(take.estimate, limit), now):
                return None
        for place in wanted.places:
            if self._taken[place.key] >= share.of(place.limit):
                return None
        for place in wanted.places:
            self._taken[place.key] += 1
        readings = []
        for take in wanted.takes:
            limit = share.of(take.limit)
            readings.append(windows.take(take.key, limit, min(take.estimate, limit), now))
        return readings

    def leave(self, wanted: Wanted, counted: Sequence[Counted], used: Sequence[int]) -> None:
        """So much was used really, and the places are free again."""
        for take, (started, cost), really in zip(wanted.takes, counted, used, strict=True):
            if really != cost:
                self.windows.correct(take.key, started, really - cost)
        for place in wanted.places:
            self._taken[place.key] -= 1
            if self._taken[place.key] <= 0:
                del self._taken[place.key]
