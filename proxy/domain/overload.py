"""When requests are turned away because everything is late, and how many.

What waits for this process waits in the event loop, which serves in each turn all that is ready. So the length of a
turn stands for the delay, and new requests are what can be had less of. Three ideas, each an old one:

- A queue that is long for a moment is a burst, and good; one that stands only adds waiting (CoDel, RFC 8289). Nothing
  is refused before turns have been too long again and again for an interval.
- From then on each turn begins at most so many new requests, and that number follows what they do to its length: one
  more if it was short, in proportion fewer if it was too long (D.-M. Chiu and R. Jain, "Analysis of the Increase and
  Decrease Algorithms for Congestion Avoidance", 1989; TCP does it so).
- Those of low priority are refused first (H. Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.domain.rate_limits import Priority

_INTERVAL_SECONDS: Final = 0.05
_CALM_SECONDS: Final = 2.0
_FIRST_PACE: Final = 64.0
_LEAST_DECREASE: Final = 0.8
_LEAST_LIMIT: Final = 0.5
_VERY_LONG: Final = 5.0
_SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.5, Priority.NORMAL: 1.0, Priority.HIGH: 2.0}


class Pace:
    """How many new requests a turn of the event loop may begin, from how long turns took.

    Turns are to be no longer than `target_seconds`; with 0 they may be. `is_on` says whether there is a limit now: from
    when turns have been too long again and again for an interval, until none was for some seconds.
    """

    __slots__ = ("_last_late", "_late_since", "_target_seconds", "is_on", "limit")

    def __init__(self, target_seconds: float) -> None:
        self._target_seconds = target_seconds
        self._late_since: float | None = None
        self._last_late = 0.0
        self.limit = _FIRST_PACE
        self.is_on = False

    def observe(self, turn_seconds: float, now: float, *, is_crowd: bool = False) -> None:
        """A turn of the loop took so long; `now` is monotonic. One that a crowd made very long is enough."""
        if not self._target_seconds or turn_seconds < self._target_seconds:
            self.is_on = self.is_on and now < self._last_late + _CALM_SECONDS
            if now > self._last_late + _INTERVAL_SECONDS:
                self._late_since = None
            return
        self._last_late = now
        if self._late_since is None:
            self._late_since = now
        is_flood = is_crowd and turn_seconds >= _VERY_LONG * self._target_seconds
        self.is_on = self.is_on or is_flood or now - self._late_since >= _INTERVAL_SECONDS

    def allows(self, begun: int, priority: Priority) -> bool:
        """Whether one more may begin in a turn that has begun so many."""
        return not self.is_on or begun < self.limit * _SHARES[priority]

    def learn(self, turn_seconds: float, *, was_limited: bool) -> None:
        """A turn that began some took so long; `was_limited` if it would have begun more."""
        if turn_seconds > self._target_seconds:
            decrease = max(_LEAST_DECREASE, self._target_seconds / turn_seconds)
            lower = self.limit * decrease
            self.limit = lower if lower >= _LEAST_LIMIT else 0.0
        elif was_limited:
            self.limit += 1.0
