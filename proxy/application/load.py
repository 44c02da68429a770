"""What this process has taken on, and what it turns away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from proxy.application.cohort import Cohort
from proxy.domain.errors import Overloaded, RateLimited
from proxy.domain.overload import Patience
from proxy.domain.rate_limits import Priority

RETRY_AFTER_SECONDS: Final = 1.0
_SHARE_OF_LOW = 0.8


class Refusal(StrEnum):
    """Why a request was turned away before anybody looked at it."""

    LATE = "late"  # its turn did not come in time
    QUEUED = "queued"  # too many wait already
    IN_FLIGHT = "in_flight"  # as many are served as may be
    CONNECTIONS = "connections"

    __hash__ = str.__hash__  # an enum's own is a Python function, and refusals are counted by the thousand


class Load:
    """The requests that are being served: `most` in all, `most_of_a_key` of one key. One for the whole process.

    At most `most_queued` wait to begin, with that patience. `cohort` is what those who begin together share.
    """

    def __init__(
        self, most: int, most_queued: int, most_of_a_key: int, most_connections: int, patience: Patience
    ) -> None:
        self.most = most
        self.most_queued = most_queued
        self.most_of_a_key = most_of_a_key
        self.most_connections = most_connections
        self.patience = patience
        self.cohort = Cohort()
        self.in_flight = 0
        self.connections = 0
        self.refused: Counter[Refusal] = Counter()
        self._most_of_low = max(1, int(most * _SHARE_OF_LOW))
        self._of_keys: dict[int, int] = {}  # by the number of a key's id, whose own hash is slow

    def begin(self, key_id: UUID | None, priority: Priority) -> None:
        """A request is let in; `end` is to follow in any case. Raises Overloaded, or RateLimited for the key alone."""
        if self.in_flight >= self._most(priority):
            raise Overloaded(f"The gateway serves as many requests as it may ({self.most}).", RETRY_AFTER_SECONDS)
        if key_id is not None:
            of_key = self._of_keys.get(key_id.int, 0)
            if of_key >= self.most_of_a_key:
                message = f"This key has {of_key} requests in flight, which is as many as one key may have here."
                raise RateLimited(message, RETRY_AFTER_SECONDS)
            self._of_keys[key_id.int] = of_key + 1
        self.in_flight += 1

    def end(self, key_id: UUID | None) -> None:
        """A request that was let in has ended."""
        self.in_flight -= 1
        if key_id is not None:
            of_key = self._of_keys[key_id.int] - 1
            if of_key:
                self._of_keys[key_id.int] = of_key
            else:
                del self._of_keys[key_id.int]

    @property
    def has_room_for_all(self) -> bool:
        """Whether whoever comes now may be served, however low its priority: to be asked for each request."""
        return (
            self.in_flight < self._most_of_low
            and self.connections <= self.most_connections
            and not self.patience.is_loop_late
        )

    def has_room(self, priority: Priority) -> bool:
        """Whether one more of that priority may be."""
        return self.in_flight < self._most(priority)

    def _most(self, priority: Priority) -> int:
        return self._most_of_low if priority is Priority.LOW else self.most

    def state(self) -> Mapping[str, Any]:
        """For the health report."""
        return {
            "in_flight": self.in_flight,
            "most_in_flight": self.most,
            "connections": self.connections,
            "most_connections": self.most_connections,
            "is_late": self.patience.is_late,
            "refused": {reason.value: self.refused[reason] for reason in Refusal},
        }
