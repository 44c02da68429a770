"""A latency that rises at once and falls slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class PeakEwma:
    """A moving average of times in seconds that jumps to a peak when one is seen, and forgets it within minutes.

    It falls also while nothing is observed: a deployment that was slow once and is avoided since would never be tried
    again. `decay_seconds` is the time in which it falls to 37 %.
    """

    decay_seconds: float = 30.0
    _seconds: float | None = None
    _at: float = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """A time was measured. `now` is of any clock that never goes back."""
        if self._seconds is None or seconds >= self._seconds:
            self._seconds = seconds
        else:
            kept = self._kept(now)
            self._seconds = self._seconds * kept + seconds * (1 - kept)
        self._at = now

    def value(self, now: float) -> float | None:
        """The average at that moment; None while nothing was measured."""
        return None if self._seconds is None else self._seconds * self._kept(now)

    def _kept(self, now: float) -> float:
        return math.exp(-max(0.0, now - self._at) / self.decay_seconds)
