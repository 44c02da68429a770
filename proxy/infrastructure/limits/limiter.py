"""RateLimiter: asks Valkey if there is one that answers, and else counts for itself."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from proxy.application.allowances import AppliedLimit, RateGate, RatePass
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import NO_TOKENS, Priority
from proxy.infrastructure.limits.gates import LimitsGate, RequestsGate
from proxy.infrastructure.limits.levels import levels_of
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.room import NoSeat, WaitingRoom
from proxy.infrastructure.limits.shared import CountsLost, SharedCounts
from proxy.infrastructure.limits.shares import Share
from proxy.infrastructure.limits.wanted import Place, Wanted, may_wait_for, wanted_of
from proxy.infrastructure.limits.windows import Reading
from proxy.infrastructure.limits.words import no_place, refusal

_logger = logging.getLogger(__name__)
_FIRST_LOOK_SECONDS = 2.0
_TICK_SECONDS = 0.1


class CountingLimiter:
    """RateLimiter over this process's counts, and Valkey's if it is given.

    A request that gets no answer from Valkey in time is measured by local limits, and so are those after it until a
    probe in the background is answered: nobody else waits. Locally a limit is divided by `share`.
    """

    def __init__(self, local: LocalCounts, shared: SharedCounts | None, room: WaitingRoom[Pass]) -> None:
        self._local = local
        self._shared = shared
        self._room = room
        self._trouble: str | None = None
        self.refusal: Mapping[str, str] = {}  # what Valkey said at last instead of an answer, for the log
        self._name = uuid4().hex[:12]
        self._numbers = itertools.count()
        self._to_tell = asyncio.Event()
        self.falls_back = shared is not None  # whether local limits are not what was asked for

    def gate(self, limits: Sequence[AppliedLimit]) -> RateGate:
        wanted = wanted_of(limits, NO_TOKENS)
        if wanted.is_single and not wanted.may_differ and self._shared is None:
            return RequestsGate(self, self._local, wanted)
        return LimitsGate(self, limits)

    def let_in_at_once(self, wanted: Wanted, priority: Priority) -> RatePass | None:
        """What is wanted; None, and nothing is taken, if that takes waiting, or words."""
        if self._shared is not None:
            return None
        if wanted.places and self._waited_for(wanted, priority):
            return None
        readings = self._local.enter(wanted)
        return None if readings is None else Pass(self, wanted, "", None, readings, None)

    async def let_in(self, wanted: Wanted, priority: Priority) -> RatePass:
        """What is wanted. Raises RateLimited."""
        full = self._waited_for(wanted, priority)
        if not full:
            outcome = await self._attempt(wanted)
            if isinstance(outcome, Pass):
                return outcome
            full = outcome
        if not all(map(may_wait_for, full)):
            raise self._no_place(wanted, full, "all are taken")
        try:
            return await self._room.wait(wanted.place_keys, priority, lambda: self._attempt_once_more(wanted))
        except NoSeat as reason:
            raise self._no_place(wanted, full, str(reason)) from None

    def _waited_for(self, wanted: Wanted, priority: Priority) -> Sequence[Place]:
        """Places that others wait for already, who come first."""
        return [each for each in wanted.places if may_wait_for(each) and self._room.is_waited_for(each.key, priority)]

    async def remaining(self, limits: Sequence[AppliedLimit]) -> Sequence[Mapping[str, int]]:
        """RateLevels. Where others count, too, this process does not know what they have let in."""
        if self.falls_back or self._local.share.processes > 1:
            return [{} for _ in limits]
        return levels_of(limits, self._local)

    async def _attempt_once_more(self, wanted: Wanted) -> Pass | None:
        outcome = await self._attempt(wanted)
        return outcome if isinstance(outcome, Pass) else None

    async def _attempt(self, wanted: Wanted) -> Pass | Sequence[Place]:
        """What is wanted; or else the places that are not free. Raises RateLimited for windows without room."""
        if self._shared is None or self._trouble is not None:
            return self._attempt_locally(wanted)
        member = self._new_member()
        try:
            answer = await self._shared.enter(wanted, member)
        except CountsLost as problem:
            self._lost(problem)
            self._shared.leave(member, wanted.places)
            # Who is only slow counts it still, after we have stopped waiting.
            return self._attempt_locally(wanted, is_told=problem.is_late)
        except BaseException:  # cancelled: it may have got in
            self._shared.leave(member, wanted.places)
            raise
        if answer.full_takes:
            seen = [(wanted.takes[index], answer.readings[index]) for index in answer.full_takes]
            raise refusal(seen, is_local=False)
        if answer.full_places:
            return answer.full_places
        return self._let_in(wanted, member, answer.readings)

    def _new_member(self) -> str:
        return f"{self._name}:{next(self._numbers)}"

    def _attempt_locally(self, wanted: Wanted, *, is_told: bool = False) -> Pass | Sequence[Place]:
        seen = self._local.read(wanted.takes)
        if any(not reading.has(min(take.estimate, reading.limit)) for take, reading in seen):
            raise refusal(seen, is_local=self.falls_back)
        return self._local.full(wanted.places) or self._let_in(wanted, self._new_member(), None, is_told=is_told)

    def _let_in(self, wanted: Wanted, member: str, shared: Sequence[Reading] | None, *, is_told: bool = False) -> Pass:
        counted = self._local.take(wanted)
        if self._shared is not None:
            self._shared.hold(member, wanted.places)
        if shared is not None:
            return Pass(self, wanted, member, counted, (), shared)
        granted = Pass(self, wanted, member, counted, [self._local.read_one(take) for take in wanted.takes], None)
        if self._shared is not None and not is_told:
            granted.untold = [(self._local.untold.add(take.key, take.cost), take.cost) for take in wanted.takes]
        return granted

    def _no_place(self, wanted: Wanted, full: Sequence[Place], reason: str) -> RateLimited:
        is_local = self.falls_back and self._trouble is not None
        return no_place(full, self._local.read(wanted.takes), reason, is_local=is_local)

    def left(self, granted: Pass, used: Sequence[int]) -> None:
        """The request has ended, having used so much of each window."""
        wanted = granted.wanted
        self._local.leave(wanted, granted.counted, used)
        if self._shared is not None:
            self._shared.leave(granted.member, wanted.places)
            for take, reading, really in zip(wanted.takes, granted.shared or (), used, strict=False):
                if really != take.cost:
                    self._shared.correct(take.key, reading.started, really - take.cost)
            for take, (started, cost), really in zip(wanted.takes, granted.untold, used, strict=False):
                if really != cost:
                    self._local.untold.correct(take.key, started, really - cost)
            self._to_tell.set()
        if wanted.places:
            self._room.wake()

    # Valkey, in the background.

    def _lost(self, problem: CountsLost) -> None:
        self.refusal = {} if problem.refusal is None else {"detail": problem.refusal}
        if self._trouble is None:
            facts = {"reason": str(problem), **self.refusal}
            _logger.warning("Valkey does not answer: limits are local", extra=facts)
        self._trouble = str(problem)

    async def begin(self) -> None:
        """Look at Valkey with more patience than a request has."""
        if self._shared is not None:
            self._trouble = "not reached yet"
            await self._look(self._shared, _FIRST_LOOK_SECONDS)

    async def look(self) -> None:
        """Whether it is back. To be called about once a second."""
        if self._shared is not None and self._trouble is not None:
            await self._look(self._shared, None)

    async def _look(self, shared: SharedCounts, most_seconds: float | None) -> None:
        try:
            await shared.probe(most_seconds)
            await shared.renew()
        except CountsLost as problem:
            self._lost(problem)
            return
        _logger.info("Valkey answers: limits are shared")
        for key, used in self._local.untold.take_all().items():
            shared.count(key, used)
        self._trouble = None
        self._to_tell.set()
        self._room.wake()

    async def renew(self) -> None:
        """Keep the places of requests that run. To be called several times in a lease."""
        if self._shared is not None and self._trouble is None:
            try:
                await self._shared.renew()
            except CountsLost as problem:
                self._lost(problem)

    async def tell(self) -> None:
        """Tell Valkey what has ended as soon as it has; and see what others have given back, while somebody waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TICK_SECONDS):
                await self._to_tell.wait()
        self._to_tell.clear()
        if self._shared is not None and self._trouble is None:
            try:
                await self._shared.tell()
            except CountsLost as problem:
                self._lost(problem)
            if len(self._room):
                self._room.wake()

    async def say_goodbye(self) -> None:
        """Tell what is left to tell, so that nobody waits for leases of a process that is no more."""
        if self._shared is not None:
            if self._trouble is None:
                with suppress(CountsLost):
                    await self._shared.tell()
            await self._shared.close()

    async def serve_waiting(self) -> None:
        """Until it is cancelled."""
        await self._room.run()

    def divide(self, share: Share) -> None:
        """From now on this is our share of local limits."""
        if share.processes != self._local.share.processes:
            _logger.info("rate limits are divided among processes", extra={"processes": share.processes})
        if share != self._local.share:
            self._local.share = share
            self._room.wake()

    @property
    def trouble(self) -> str | None:
        """Why limits are local although they should be shared."""
        if self._trouble is None:
            return None
        return f"Valkey does not answer ({self._trouble}): rate limits are local"

    @property
    def description(self) -> str:
        """For whoever starts the gateway."""
        if self._shared is None:
            return (
                "rate limits are counted by each process, and divided among those that share the data directory "
                f"(now {self._local.share.processes}); set LLMGATEWAY_VALKEY_URL to share them among hosts"
            )
        return self.trouble or "rate limits are shared through Valkey"

    def state(self) -> Mapping[str, Any]:
        """For the health report."""
        is_shared = self._shared is not None and self._trouble is None
        return {
            "mode": "shared" if is_shared else "local",
            "valkey": None if self._shared is None else "up" if is_shared else "down",
            "last_error": self._trouble,
            "local_processes": self._local.share.processes,
            "counted": self._local.keys,
            "waiting": len(self._room),
            "untold": 0 if self._shared is None else self._shared.waiting,
        }
