"""Waiting for the end of a cool-down, for requests that nobody else can serve."""

from __future__ import annotations

import math
from collections.abc import Callable

from proxy.domain.errors import DeploymentBusy
from proxy.infrastructure.resilience import Timing

_SPREAD = 0.25


class Rests:
    """At most `most_waiting` requests wait at once, each no longer than `longest_seconds`.

    They go on one after the other within a quarter of the wait, by chance: a provider that has just asked for less
    should not get all of them at once.
    """

    def __init__(self, longest_seconds: float = 0.0, most_waiting: int = 100, timing: Timing | None = None) -> None:
        self._longest_seconds = longest_seconds
        self._most_waiting = most_waiting
        self._timing = timing or Timing()
        self.waiting = 0

    def admit(self, seconds: float) -> bool:
        """Whether one more may wait that long."""
        return seconds <= self._longest_seconds and self.waiting < self._most_waiting

    async def until_over(self, deployment: str, seconds_left: Callable[[], float], most_seconds: float) -> None:
        """Returns when no second is left; others may have prolonged the cool-down meanwhile.

        Raises DeploymentBusy when that takes longer than it may, or `most_seconds`, or when too many wait.
        """
        end = self._timing.clock() + min(self._longest_seconds, most_seconds)
        while (left := seconds_left()) > 0:
            if self._timing.clock() + left > end or not self.admit(left):
                raise DeploymentBusy(deployment, f"it is cooling down, {math.ceil(left)} s left", left)
            self.waiting += 1
            try:
                await self._timing.sleep(left * (1 + _SPREAD * self._timing.jitter()))
            finally:
                self.waiting -= 1
