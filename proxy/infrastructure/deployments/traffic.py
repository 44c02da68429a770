"""What live traffic tells of a deployment; nothing is asked for it. Times are seconds of the given clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from time import monotonic

from proxy.domain.routing import PeakEwma

_KEPT_OUTCOMES = 100
_KEPT_LATENCIES = 200
_FEWEST_FOR_P95 = 20
_P95 = 0.95
_MINUTE_SECONDS = 60.0
_LONGEST_REST_SECONDS = 3600.0  # else a provider's mistake would keep its models away until a restart
_MOST_MODELS = 1000  # names behind a wildcard come from clients


class Latency:
    """Times to the first byte."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._average = PeakEwma()
        self._last: deque[float] = deque(maxlen=_KEPT_LATENCIES)

    def answered(self, seconds: float) -> None:
        self._last.append(seconds)
        self._average.observe(seconds, self._clock())

    def failed(self, seconds: float) -> None:
        """A failure that came fast says nothing of how fast answers come."""
        average = self.ewma_seconds
        if average is not None and seconds > average:
            self._average.observe(seconds, self._clock())

    @property
    def ewma_seconds(self) -> float | None:
        """Peak-sensitive moving average; None before the first answer."""
        return self._average.value(self._clock())

    def p95_seconds(self) -> float | None:
        """Of the last answers; None while they are too few to tell."""
        if len(self._last) < _FEWEST_FOR_P95:
            return None
        return sorted(self._last)[math.ceil(len(self._last) * _P95) - 1]


class Outcomes:
    """How the last calls ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: deque[bool] = deque(maxlen=_KEPT_OUTCOMES)
        self.last_error: str | None = None
        self._failed_at = 0.0

    def answered(self) -> None:
        self._last.append(True)

    def failed(self, reason: str) -> None:
        """`reason` is a short stable word."""
        self._last.append(False)
        self.last_error, self._failed_at = reason, self._clock()

    @property
    def calls(self) -> int:
        """How many are remembered, a hundred at most."""
        return len(self._last)

    @property
    def success_rate(self) -> float | None:
        """Of the last hundred calls; None before the first."""
        return sum(self._last) / len(self._last) if self._last else None

    @property
    def last_failed(self) -> bool:
        return bool(self._last) and not self._last[-1]

    def last_error_seconds_ago(self) -> float | None:
        return None if self.last_error is None else self._clock() - self._failed_at


class CoolDowns:
    """Which models a deployment has asked not to be called for, by Retry-After, and for how long: an hour at most."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.until: dict[str, float] = {}  # those that are over may be there still

    def begin(self, model: str, seconds: float) -> None:
        now = self._clock()
        if len(self.until) >= _MOST_MODELS:
            self.until = {name: until for name, until in self.until.items() if until > now}
        if len(self.until) < _MOST_MODELS:
            self.until[model] = max(now + min(seconds, _LONGEST_REST_SECONDS), self.until.get(model, now))

    def seconds_left(self, model: str) -> float:
        if model not in self.until:
            return 0.0
        left = self.until[model] - self._clock()
        if left > 0:
            return left
        del self.until[model]
        return 0.0

    def models(self) -> dict[str, float]:
        """The models that are cooling down, with the seconds that are left."""
        return {name: left for name in list(self.until) if (left := self.seconds_left(name)) > 0}


class MinuteUse:
    """Requests and tokens of the minute that is running."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minute = 0
        self._requests = self._tokens = 0

    def count(self, *, requests: int = 0, tokens: int = 0) -> None:
        minute = int(self._clock() // _MINUTE_SECONDS)
        if minute != self._minute:
            self._minute, self._requests, self._tokens = minute, 0, 0
        self._requests += requests
        self._tokens += tokens

    def so_far(self) -> tuple[int, int]:
        """Requests and tokens."""
        self.count()
        return self._requests, self._tokens


class Traffic:
    """All of it. Answers that are streamed and those that are not have latencies that cannot be compared."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.streams = Latency(clock)
        self.whole_answers = Latency(clock)
        self.outcomes = Outcomes(clock)
        self.cool_downs = CoolDowns(clock)
        self.minute = MinuteUse(clock)

    def latency(self, *, stream: bool) -> Latency:
        return self.streams if stream else self.whole_answers
