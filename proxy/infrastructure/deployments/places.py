"""A limit on the calls that one deployment has at a time, so that a hung one cannot take the gateway with it."""

from __future__ import annotations

import asyncio
from collections import deque

from proxy.domain.errors import DeploymentBusy

_RETRY_AFTER_SECONDS = 1.0


class Places:
    """At most `most` at once (None: any number), and at most `most_waiting` in the queue, first come, first served."""

    def __init__(
        self, deployment: str, most: int | None = None, most_waiting: int = 100, wait_seconds: float = 10.0
    ) -> None:
        self._deployment = deployment
        self._most = most
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._queue: deque[asyncio.Future[None]] = deque()
        self.taken = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether one more would be turned away."""
        return self._most is not None and self.taken >= self._most and self.waiting >= self._most_waiting

    def take_at_once(self) -> bool:
        """Takes a place, to be given back by `leave`, if one is free and nobody waits for it."""
        if self._most is None or (self.taken < self._most and not self._queue):
            self.taken += 1
            return True
        return False

    async def take(self, most_seconds: float) -> None:
        """Returns with a place.

        Raises DeploymentBusy when the queue is full, or when no place was free within the queue's time-out and
        `most_seconds`.
        """
        if self.take_at_once():
            return
        if self.waiting >= self._most_waiting:
            raise DeploymentBusy(self._deployment, "its queue is full", _RETRY_AFTER_SECONDS)
        await self._wait_for_one(min(most_seconds, self._wait_seconds))

    async def _wait_for_one(self, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as problem:
            if turn.done() and not turn.cancelled():  # the place came at the same moment
                self.leave()
            elif turn in self._queue:  # else a place came free in the same turn, and has passed it over
                self._queue.remove(turn)
            if isinstance(problem, TimeoutError):
                raise DeploymentBusy(
                    self._deployment, f"no place was free within {seconds:g} s", _RETRY_AFTER_SECONDS
                ) from None
            raise

    def leave(self) -> None:
        """Gives a place back, to the first that waits for one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands
                return
        self.taken -= 1
