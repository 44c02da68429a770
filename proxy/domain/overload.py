"""Who waits when more is asked than can be done, and when waiting is over.

What waits for this process waits for its event loop, which serves in each turn all that is ready. So few requests begin
at a time, and the others stand in a queue: turns stay short whatever comes, those who are being served have the
processor among few, and how long a newcomer waits is known for each. Five ideas, most of them old ones:

- A queue that is long for a moment is a burst, and good; one that stands only adds waiting (CoDel, RFC 8289). Waiting
  may take a while at first. It may take little once everybody has waited for long for a while, or there is no place to
  wait any more, and until nobody has had to go for some seconds.
- While all are served in time, the first is served first. When they cannot be, the newest is: others would be served
  after a wait as long as they are let wait at all, and those behind them, too (adaptive LIFO: B. Maurer, "Fail at
  Scale", 2015).
- A refusal is told late: whoever is told at once asks again at once, and refusals are all that is done in the end.
- How long a queue may be for its last one to be served in time is the rate at which it is served times the time
  (J. Little, "A Proof for the Queuing Formula", 1961). That is so whoever waits, so it is over when the load is.
- Those of low priority are refused first (H. Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from proxy.domain.rate_limits import Priority

_BURST: Final = 20.0
_CALM_SECONDS: Final = 2.0
_TURNS: Final = 3
_WITHOUT_SECONDS: Final = 0.05  # for those whom something else than time keeps waiting
_TOLD_SECONDS: Final = 0.05  # after it came, at the soonest; within the 100 ms in which a refusal is of use
_LONG_TURN_SECONDS: Final = 0.05  # at the least
_FOR_EVER: Final = float("inf")
_WEIGHT: Final = 0.05
_SHARES: Final[Mapping[Priority, float]] = {Priority.LOW: 0.5, Priority.NORMAL: 1.0, Priority.HIGH: 2.0}

Item = TypeVar("Item")


class Patience:
    """How long a request may wait for its turn: `usual_seconds`, 20 times that in a burst; 0: as long as it takes.

    `is_late` says whether somebody was refused for that within the last seconds. `is_loop_late` says that turns of the
    event loop are longer than that, and than 50 ms, again and again, whoever makes them so.
    """

    __slots__ = ("_last_refusal", "_turns", "is_late", "is_loop_late", "usual_seconds")

    def __init__(self, usual_seconds: float) -> None:
        self.usual_seconds = usual_seconds
        self._turns: deque[float] = deque(maxlen=_TURNS)
        self._last_refusal = float("-inf")
        self.is_late = False
        self.is_loop_late = False

    def observe(self, turn_seconds: float, now: float) -> None:
        """A turn of the loop took so long; `now` is monotonic."""
        self._turns.append(turn_seconds)
        is_long = len(self._turns) == _TURNS and min(self._turns) > max(self.usual_seconds, _LONG_TURN_SECONDS)
        self.is_loop_late = is_long and self.usual_seconds > 0
        self.is_late = now < self._last_refusal + _CALM_SECONDS

    def ran_out(self, now: float) -> None:
        """Somebody has waited for too long, or more want to wait while others do so."""
        self._last_refusal = now
        self.is_late = True

    def seconds(self, now: float, in_time_at: float) -> float:
        """For those in a queue whose first has waited for longer than usual since then."""
        if not self.usual_seconds:
            return _FOR_EVER
        if self.is_late or now - in_time_at >= _BURST * self.usual_seconds:
            return self.usual_seconds
        return _BURST * self.usual_seconds


@dataclass(slots=True)
class _Lane(Generic[Item]):
    """Those of one priority, with the moment since when they may have waited; the first was last in time then."""

    most: int
    waiting: deque[tuple[float, Item]] = field(default_factory=deque)
    in_time_at: float = 0.0
    given_up: deque[tuple[float, Item]] = field(default_factory=deque)  # they are told so when it is time


class AdmissionQueue(Generic[Item]):
    """Who has come and has neither begun nor gone, at most `most` of normal priority. All times are monotonic."""

    __slots__ = ("_given_up", "_hopeless", "_lanes", "_length", "_patience", "_seconds_each")

    def __init__(self, patience: Patience, most: int) -> None:
        self._patience = patience
        self._lanes = {priority: _Lane[Item](max(1, int(most * share))) for priority, share in _SHARES.items()}
        self._hopeless: deque[tuple[float, Item]] = deque()
        self._length = 0
        self._given_up = 0
        self._seconds_each = 0.0

    def __len__(self) -> int:
        return self._length + self._given_up + len(self._hopeless)

    def add(self, item: Item, priority: Priority, since: float) -> bool:
        """Whether there was a place. If not, it waits all the same until it is told so: who is refused comes again."""
        lane = self._lanes[priority]
        if self._length >= lane.most:
            self._hopeless.append((since, item))
            if lane.waiting and lane.waiting[0][0] + self._usual_seconds <= since:  # no burst is as large and as long
                self._patience.ran_out(since)
            return False
        if not lane.waiting:
            lane.in_time_at = since
        self._length += 1
        lane.waiting.append((since, item))
        return True

    def take(self, priority: Priority, now: float) -> Item | None:
        """The next of these."""
        lane = self._lanes[priority]
        waiting = lane.waiting
        if not waiting:
            return None
        if waiting[0][0] + self._patience.usual_seconds > now:
            lane.in_time_at = now
        seconds = self._patience.seconds(now, lane.in_time_at)
        would_be_in_time = self._length * self._seconds_each <= seconds
        self._length -= 1
        return (waiting.popleft() if would_be_in_time else waiting.pop())[1]

    def served(self, count: int, seconds: float) -> None:
        """So many were taken in a stretch of so many seconds at whose end others still waited."""
        self._seconds_each += _WEIGHT * (seconds / count - self._seconds_each)

    def expired(self, priority: Priority, now: float, *, has_room: bool = True) -> Sequence[Item]:
        """Takes those out who have waited for too long, and are to be told so now.

        Who waits for room, not for a turn, never may for long.
        """
        lane, patience = self._lanes[priority], self._patience
        if lane.waiting:
            can_begin = has_room and not patience.is_loop_late
            seconds = patience.seconds(now, lane.in_time_at) if can_begin else self._usual_seconds
            given_up = _taken_since(lane.waiting, now - seconds)
            if given_up:
                self._length -= len(given_up)
                self._given_up += len(given_up)
                lane.given_up.extend(given_up)
                if has_room:
                    patience.ran_out(now)
        told = _taken_since(lane.given_up, now - _TOLD_SECONDS) if lane.given_up else ()
        self._given_up -= len(told)
        return [item for _, item in told]

    def expired_without_place(self, now: float) -> Sequence[Item]:
        """The same for those who never had a place."""
        told = _taken_since(self._hopeless, now - max(self._usual_seconds, _TOLD_SECONDS)) if self._hopeless else ()
        return [item for _, item in told]

    @property
    def _usual_seconds(self) -> float:
        return self._patience.usual_seconds or _WITHOUT_SECONDS


def _taken_since(waiting: deque[tuple[float, Item]], since: float) -> list[tuple[float, Item]]:
    """Those at the front who have waited since then or longer."""
    taken = []
    while waiting and waiting[0][0] <= since:
        taken.append(waiting.popleft())
    return taken
