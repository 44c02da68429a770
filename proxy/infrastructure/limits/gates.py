"""RateGate: the limits of one caller's requests, and the quick way through the commonest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from proxy.application.allowances import AppliedLimit, RatePass
from proxy.domain.rate_limits import NO_TOKENS, Priority, TokenEstimate
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.wanted import Take, Wanted, wanted_of
from proxy.infrastructure.limits.words import told


class Entrance(Protocol):
    """Who counts."""

    def let_in_at_once(self, wanted: Wanted, priority: Priority) -> RatePass | None: ...

    async def let_in(self, wanted: Wanted, priority: Priority) -> RatePass: ...


class LimitsGate:
    """RateGate for any limits."""

    __slots__ = ("_entrance", "_limits", "_wanted")

    def __init__(self, entrance: Entrance, limits: Sequence[AppliedLimit]) -> None:
        self._entrance = entrance
        self._limits = limits
        wanted = wanted_of(limits, NO_TOKENS)
        self._wanted = None if wanted.may_differ else wanted  # else each request wants something else

    def enter_at_once(self, estimate: TokenEstimate, priority: Priority) -> RatePass | None:
        return self._entrance.let_in_at_once(self._wanted or wanted_of(self._limits, estimate), priority)

    async def enter(self, estimate: TokenEstimate, priority: Priority) -> RatePass:
        return await self._entrance.let_in(self._wanted or wanted_of(self._limits, estimate), priority)


class RequestsGate:
    """RateGate for a single limit on requests that nobody but this process counts: nothing is to be given back.

    Whom it does not let in is let in, or refused, where all the others are.
    """

    __slots__ = ("_entrance", "_local", "_take", "_wanted")

    def __init__(self, entrance: Entrance, local: LocalCounts, wanted: Wanted) -> None:
        self._entrance = entrance
        self._local = local
        self._wanted = wanted
        (self._take,) = wanted.takes

    def enter_at_once(self, _estimate: TokenEstimate, _priority: Priority) -> CountedRequest | None:
        take, share = self._take, self._local.share
        limit = take.limit if share.processes == 1 else share.of(take.limit)
        seen = self._local.windows.take_one_if_room(take.key, limit)
        return None if seen is None else CountedRequest(take, limit, *seen)

    async def enter(self, _estimate: TokenEstimate, priority: Priority) -> RatePass:
        return await self._entrance.let_in(self._wanted, priority)


class CountedRequest:
    """RatePass of a request that was counted as one, and was one."""

    __slots__ = ("_limit", "_remaining", "_reset_seconds", "_take")
    is_counted = True

    def __init__(self, take: Take, limit: int, remaining: int, reset_seconds: float) -> None:
        self._take = take
        self._limit = limit
        self._remaining = remaining
        self._reset_seconds = reset_seconds

    @property
    def headers(self) -> Mapping[str, str]:
        return told(self._take, self._limit, self._remaining, self._reset_seconds)

    def leave(self, input_tokens: int, output_tokens: int) -> None:
        """Nothing changes."""
