"""A limiter with a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from proxy.application.allowances import AppliedLimit
from proxy.domain.access.scopes import GATEWAY, Subject
from proxy.domain.rate_limits import NO_TOKENS, Priority, RateLimit, TokenEstimate
from proxy.infrastructure.limits.gates import CountedRequest
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.limits.running import limiting
from proxy.infrastructure.limits.valkey import ValkeyCounts


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def applied(subject: Subject = GATEWAY, id_: UUID | None = None, **limits: Any) -> AppliedLimit:
    return AppliedLimit(RateLimit(id=id_ or uuid4(), subject=subject, **limits), subject)


@dataclass
class Limiter:
    """A limiter, and short words for asking it."""

    clock: Clock
    local: LocalCounts
    counting: CountingLimiter
    shared: ValkeyCounts | None

    async def enter(
        self, *limits: AppliedLimit, estimate: TokenEstimate = NO_TOKENS, priority: Priority = Priority.NORMAL
    ) -> Pass | CountedRequest:
        gate = self.counting.gate(limits)
        granted = gate.enter_at_once(estimate, priority) or await gate.enter(estimate, priority)
        assert isinstance(granted, Pass | CountedRequest)
        return granted


Build = Callable[..., Any]


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    """Builds limiters; their queue is for `queue` requests, each for `wait_seconds`."""
    async with AsyncExitStack() as stack:

        async def make(
            url: str | None = None,
            *,
            queue: int = 10,
            wait_seconds: float = 30.0,
            window_seconds: float = 60.0,
            lease_seconds: float = 30.0,
            deadline_seconds: float = 0.5,
            look_seconds: float = 0.05,
        ) -> Limiter:
            clock = Clock()
            shared = None if url is None else ValkeyCounts(url, deadline_seconds, window_seconds, lease_seconds)
            local = LocalCounts(clock, window_seconds)
            room: WaitingRoom[Pass] = WaitingRoom(queue, wait_seconds)
            limiter = CountingLimiter(local, shared, room)
            await stack.enter_async_context(limiting(limiter, look_seconds, lease_seconds / 3))
            return Limiter(clock, local, limiter, shared)

        yield make
