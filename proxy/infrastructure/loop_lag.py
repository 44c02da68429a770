"""Measuring how long a turn of the event loop takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PERIOD_SECONDS, _QUIET_PERIOD_SECONDS = 0.02, 0.1
_SHORT_SECONDS = 0.002


class LoopLag:
    """Tells `observe` the length of a turn in seconds and the monotonic time, again and again while it runs.

    That length is how late whatever becomes ready is served: in a turn everything that is ready runs once. It is the
    time between two callbacks of which the first asks for the second, or how late the timer was, whichever is more:
    that sees a single long callback, too. It is taken each 20 ms, and each 100 ms while turns are short: a measurement
    is four turns, which wake a process that sleeps and find its caches cold (0.2 ms).
    """

    def __init__(self, observe: Callable[[float, float], None]) -> None:
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._late = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, after_seconds: float = _PERIOD_SECONDS) -> None:
        self._due = time.monotonic() + after_seconds
        self._timer = self._loop.call_later(after_seconds, self._fired)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._late = time.monotonic() - self._due
        self._loop.call_soon(self._at_the_end_of_a_turn)  # after what is ready already

    def _at_the_end_of_a_turn(self) -> None:
        self._loop.call_soon(self._at_the_beginning_of_the_next)  # before what becomes ready while it is waited

    def _at_the_beginning_of_the_next(self) -> None:
        self._loop.call_soon(self._one_turn_later, time.monotonic())

    def _one_turn_later(self, began: float) -> None:
        if self._timer is None:
            return
        now = time.monotonic()
        turn = max(now - began, self._late)
        self._observe(turn, now)
        self.begin(_QUIET_PERIOD_SECONDS if turn < _SHORT_SECONDS else _PERIOD_SECONDS)


@contextmanager
def measuring(lag: LoopLag) -> Iterator[None]:
    """Measures until the end."""
    lag.begin()
    try:
        yield
    finally:
        lag.end()
