"""A sliding window counter: what was used in this window, and the fading part of what was used in the one before.

A window begins with its first request and not at a full minute: who uses a limit up at once and keeps asking gets no
more than the limit within a minute. (After a quiet beginning of a window, a burst at its end and what fades in the next
one may come to twice the limit within one minute. That is the burst of this algorithm.)
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

WINDOW_SECONDS: Final = 60.0
_ROUNDING: Final = 1e-6
_LOOKED_AT = 4  # old windows, for each new one: more than come, so that they cannot pile up


@dataclass(slots=True)
class Window:
    """What is counted for one key."""

    started: float
    previous: float = 0.0
    current: float = 0.0

    def move_to(self, now: float, length: float) -> None:
        """Begin the next window, or anew, if this one is over."""
        age = now - self.started
        if age < length:
            return
        if age < 2 * length:
            self.previous, self.current = self.current, 0.0
            self.started += length
        else:
            self.previous = self.current = 0.0
            self.started = now


class Reading(NamedTuple):
    """A window as it was seen; `elapsed` is the part of it that was over, in seconds."""

    limit: int
    started: float
    previous: float
    current: float
    elapsed: float
    length: float = WINDOW_SECONDS

    @property
    def used(self) -> float:
        if not self.previous:
            return self.current
        return self.previous * max(0.0, 1 - self.elapsed / self.length) + self.current

    @property
    def remaining(self) -> int:
        left = self.limit - (self.used if self.previous else self.current) + _ROUNDING
        return math.floor(left) if left > 0 else 0

    def has(self, cost: float) -> bool:
        return self.used + cost <= self.limit + _ROUNDING

    @property
    def reset_seconds(self) -> float:
        """Until nothing is used any more, if nothing is asked."""
        if self.current:
            return 2 * self.length - self.elapsed
        return self.length - self.elapsed if self.previous else 0.0

    def wait_seconds(self, cost: float) -> float:
        """Until there is room for so much, if nobody else asks."""
        if self.has(cost):
            return 0.0
        room = self.limit - cost
        if self.previous and self.current <= room:  # the fading of the previous window is enough
            return self.length * (1 - (room - self.current) / self.previous) - self.elapsed
        faded = max(0.0, 1 - room / self.current) if self.current else 0.0
        return self.length - self.elapsed + self.length * faded


class Windows:
    """Those of this process, by key. What has faded is forgotten as new keys come."""

    def __init__(self, clock: Callable[[], float], length_seconds: float = WINDOW_SECONDS) -> None:
        self._clock = clock
        self._length = length_seconds
        self._windows: OrderedDict[str, Window] = OrderedDict()  # by when they were last begun

    def __len__(self) -> int:
        return len(self._windows)

    def read(self, key: str, limit: int) -> Reading:
        now = self._clock()
        window = self._windows.get(key)
        if window is None:
            return Reading(limit, now, 0.0, 0.0, 0.0, self._length)
        window.move_to(now, self._length)
        return Reading(
            limit, window.started, window.previous, window.current, max(0.0, now - window.started), self._length
        )

    def add(self, key: str, cost: float) -> float:
        """Count it, whether there is room or not. Returns when the window began, for a later correction."""
        now = self._clock()
        window = self._windows.get(key)
        if window is None:
            self._forget_old(now)
            window = self._windows[key] = Window(now)
        else:
            began = window.started
            window.move_to(now, self._length)
            if window.started != began:
                self._windows.move_to_end(key)
        window.current += cost
        return window.started

    def has_room(self, key: str, limit: int, cost: float, now: float) -> bool:
        """Whether so much more is within the limit now."""
        window = self._windows.get(key)
        if window is None:
            return cost <= limit
        window.move_to(now, self._length)
        return _used(window, now, self._length) + cost <= limit + _ROUNDING

    def take(self, key: str, limit: int, cost: float, now: float) -> Reading:
        """Count it, as `add` does, and tell how the window stands then."""
        window = self._windows.get(key)
        if window is None or now - window.started >= self._length:
            self.add(key, cost)
            window = self._windows[key]
        else:
            window.current += cost
        elapsed = now - window.started
        return Reading(limit, window.started, window.previous, window.current, max(elapsed, 0.0), self._length)

    def take_one_if_room(self, key: str, limit: int) -> tuple[int, float] | None:
        """`take` of 1, and what is told of the window then: how much remains, and in how many seconds nothing is used.

        None, and nothing is counted, if there is no room.
        """
        now, length = self._clock(), self._length
        window = self._windows.get(key)
        if window is None or now - window.started >= length:
            if not self.has_room(key, limit, 1, now):
                return None
            reading = self.take(key, limit, 1, now)
            return reading.remaining, reading.reset_seconds
        left = limit - 1 - (_used(window, now, length) if window.previous else window.current) + _ROUNDING
        if left < 0:
            return None
        window.current += 1
        elapsed = now - window.started
        return int(left), 2 * length - (elapsed if elapsed > 0 else 0.0)

    def now(self) -> float:
        """By the clock that windows are measured with."""
        return self._clock()

    def correct(self, key: str, started: float, more: float) -> None:
        """What was counted in the window that began then was so much more (or less)."""
        window = self._windows.get(key)
        if window is None:
            return
        window.move_to(self._clock(), self._length)
        if window.started == started:
            window.current = max(0.0, window.current + more)
        elif 0 < window.started - started < 1.5 * self._length:
            window.previous = max(0.0, window.previous + more)

    def take_all(self) -> dict[str, float]:
        """What is used of each, as far as it has not faded; from now on nothing is."""
        used = {key: self.read(key, 0).used for key in list(self._windows)}
        self._windows.clear()
        return {key: amount for key, amount in used.items() if amount > _ROUNDING}

    def _forget_old(self, now: float) -> None:
        for _ in range(_LOOKED_AT):
            if not self._windows:
                return
            key = next(iter(self._windows))
            if now - self._windows[key].started < 2 * self._length:
                return
            del self._windows[key]


def _used(window: Window, now: float, length: float) -> float:
    """Of a window that is not over."""
    if not window.previous:
        return window.current
    return window.current + window.previous * max(0.0, 1 - max(0.0, now - window.started) / length)
