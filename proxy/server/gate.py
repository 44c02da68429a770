"""What all connections of one port ask before they serve a request, and who is served next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from proxy.application.load import Load, Refusal
from proxy.domain.overload import AdmissionQueue
from proxy.domain.rate_limits import Priority
from proxy.server.refusals import Refusals

PriorityOf = Callable[[str | None], Priority]  # from a request's Authorization header, without asking anybody

_BEGUN_TOGETHER: Final = 16
_LOOK_SECONDS: Final = 0.005  # while those who wait cannot begin, whatever the turns
_NORMAL: Final = Priority.NORMAL
_FIRST_FIRST: Final = (Priority.HIGH, _NORMAL, Priority.LOW)


class Visitor(Protocol):
    """A connection with a request that waits."""

    def authorization(self) -> str | None:
        """The request's header of that name."""

    def begin(self) -> bool:
        """Serve it. Whether there was anything to serve: the client may have hung up."""

    def refuse(self, reason: Refusal) -> bool:
        """Turn it away. Whether there was anything to turn away."""


class Gate:
    """Begins some requests at a time, and lets the others wait or go.

    Those who begin together go through their stages together (`application/cohort.py`), and the next ones begin when
    these are on their way to an upstream: so many that what one costs is as low as with more, and so few that nobody
    waits long for the others. The loop never rests while somebody waits.
    """

    def __init__(self, load: Load, priority_of: PriorityOf, has_priorities: Callable[[], bool] = lambda: True) -> None:
        self.load = load
        self.is_closing = False  # the server is: who is refused is not to come back by the same connection
        self.refusals = Refusals()
        self._begun = 0
        self._has_begun_some = False  # since it was last looked
        self._queue: AdmissionQueue[Visitor] = AdmissionQueue(load.patience, load.most_queued)
        self._priority_of = priority_of
        self._has_priorities = has_priorities
        self._is_looking = False
        self.is_queueing = False  # somebody waits, so whoever comes now does
        self._asks_for_priorities = True
        self._last_began = 0.0
        self._served_last = 0
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether a request that comes now may begin at once: to be asked for each."""
        return self._begun < _BEGUN_TOGETHER and not self.is_queueing and self.load.has_room_for_all

    def let_in(self) -> None:
        """Count a request that begins without having waited."""
        self._begun += 1
        self._has_begun_some = True
        self._look_after_this_turn()

    def wait(self, visitor: Visitor) -> bool:
        """Its request begins later, or is refused: that is certain already if this is false."""
        if not self.is_queueing:
            self.is_queueing = True
            self._last_began = time.monotonic()
            self._asks_for_priorities = self._has_priorities()
        priority = self._priority_of(visitor.authorization()) if self._asks_for_priorities else _NORMAL
        if not self._is_looking:
            self._look_after_this_turn()
        return self._queue.add(visitor, priority, self._last_began)  # it may have come as early as that

    def _look_after_this_turn(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_soon(self._look)  # runs before whatever has come in this turn is served

    def _look(self) -> None:
        self._is_looking = False
        cohort = self.load.cohort
        if cohort.has_several and (self._has_begun_some or cohort.outward):
            self._has_begun_some, cohort.outward = False, 0
            self._look_after_this_turn()
            return
        if self._begun > 1 or cohort.has_several:
            cohort.began(self._begun)
        self._begun = 0
        if self.is_queueing:
            self._next_cohort(time.monotonic())

    def _next_cohort(self, now: float) -> None:
        if self._served_last:
            self._queue.served(self._served_last, now - self._last_began)
        self._last_began = now
        self._asks_for_priorities = self._has_priorities()
        self._begin_some(now)
        self._refuse_some(now)
        self.is_queueing = bool(self._queue)
        self._served_last = self._begun if self.is_queueing else 0
        if self._begun:
            self._has_begun_some = True
            self._look_after_this_turn()
        elif self.is_queueing and not self._is_looking:
            self._is_looking = True
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def _begin_some(self, now: float) -> None:
        if self.load.patience.is_loop_late:
            return
        for priority in _FIRST_FIRST:
            while self._begun < _BEGUN_TOGETHER and self.load.has_room(priority):
                visitor = self._queue.take(priority, now)
                if visitor is None:
                    break
                self._begun += visitor.begin()

    def _refuse_some(self, now: float) -> None:
        for priority in _FIRST_FIRST:
            has_room = self.load.has_room(priority)
            expired = self._queue.expired(priority, now, has_room=has_room)
            self._refuse(expired, Refusal.LATE if has_room else Refusal.IN_FLIGHT)
        self._refuse(self._queue.expired_without_place(now), Refusal.QUEUED)

    def _refuse(self, visitors: Sequence[Visitor], reason: Refusal) -> None:
        if visitors:
            self.load.refused[reason] += sum([visitor.refuse(reason) for visitor in visitors])
