"""How long to wait before what ended too soon is started again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_SOON_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 60.0
_FORGOTTEN_SECONDS: Final = 120.0


class BackOff:
    """Pauses that double with each process that ended soon after its start, until none has for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended_soon = 0
        self._last_end = 0.0
        self._until = 0.0

    def ended(self, started: float) -> float:
        """One that was started then has ended. Seconds until another one may be started; 0 if it had lived for long."""
        now = self._clock()
        if now - started >= _SOON_SECONDS:
            return 0.0
        if now - self._last_end > _FORGOTTEN_SECONDS:
            self._ended_soon = 0
        pause_seconds = min(_FIRST_PAUSE_SECONDS * 2.0**self._ended_soon, _LONGEST_PAUSE_SECONDS)
        self._ended_soon = min(self._ended_soon + 1, 20)
        self._last_end = now
        self._until = max(self._until, now + pause_seconds)
        return pause_seconds

    @property
    def may_start(self) -> bool:
        return self._clock() >= self._until
