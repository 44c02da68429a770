"""What live traffic has taught about a deployment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.domain.catalog import Deployment


class DeploymentState(Protocol):
    """A deployment at this moment. A live object may be one, as `StateSnapshot` is."""

    @property
    def is_at_ease(self) -> bool:
        """Whether nothing keeps it from being asked now: not drained, no full queue, breaker or cool-down."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests sent to it that have no whole answer yet."""
        ...

    @property
    def queue_full(self) -> bool:
        """No further request may even wait for a free place."""
        ...

    @property
    def latency_ewma_seconds(self) -> float | None:
        """Peak-EWMA of the times to first token; None while there was none."""
        ...

    @property
    def breaker_open_seconds(self) -> float:
        """Until the breaker lets a request through again; 0 when it does."""
        ...

    @property
    def cooling_down_seconds(self) -> float:
        """What is left of a Retry-After; 0 when nothing is."""
        ...

    @property
    def may_be_waited_for(self) -> bool:
        """Whether that is short enough for a request to wait for, if nobody else can be asked."""
        ...

    @property
    def requests_this_minute(self) -> int: ...

    @property
    def tokens_this_minute(self) -> int: ...

    @property
    def drained(self) -> bool:
        """An operator has taken it out of service."""
        ...


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """A deployment's state as a value; by default that of one which nobody has used yet."""

    in_flight: int = 0
    queue_full: bool = False
    latency_ewma_seconds: float | None = None
    breaker_open_seconds: float = 0.0
    cooling_down_seconds: float = 0.0
    may_be_waited_for: bool = False
    requests_this_minute: int = 0
    tokens_this_minute: int = 0
    drained: bool = False

    @property
    def is_at_ease(self) -> bool:
        is_waited_for = self.breaker_open_seconds > 0 or self.cooling_down_seconds > 0
        return not (self.drained or self.queue_full or is_waited_for)


UNUSED = StateSnapshot()
States = Callable[[Deployment], DeploymentState]


def all_unused(_deployment: Deployment) -> DeploymentState:
    """The states of deployments that nobody keeps statistics of."""
    return UNUSED
