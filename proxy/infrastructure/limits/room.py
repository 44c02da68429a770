"""Where requests wait for a place, the highest priority first, and first come, first served within one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from proxy.domain.rate_limits import Priority


class _Leavable(Protocol):
    def give_back(self) -> None: ...


_Granted = TypeVar("_Granted", bound=_Leavable)


class NoSeat(Exception):
    """The request cannot wait (any longer); the message says why."""


@dataclass(eq=False, slots=True)
class _Seat(Generic[_Granted]):
    keys: tuple[str, ...]
    attempt: Callable[[], Awaitable[_Granted | None]]
    turn: asyncio.Future[_Granted]


class WaitingRoom(Generic[_Granted]):
    """At most `most` requests wait, each at most `wait_seconds`. `run` serves them whenever `wake` is called."""

    def __init__(self, most: int, wait_seconds: float) -> None:
        self._most = most
        self._wait_seconds = wait_seconds
        self._seats: dict[Priority, list[_Seat[_Granted]]] = {priority: [] for priority in Priority}
        self._awake = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._seats.values()))

    def is_waited_for(self, key: str, priority: Priority) -> bool:
        """Whether someone waits for that place who comes before a newcomer of that priority."""
        return any(
            key in seat.keys for at_least, seats in self._seats.items() if at_least >= priority for seat in seats
        )

    async def wait(
        self, keys: tuple[str, ...], priority: Priority, attempt: Callable[[], Awaitable[_Granted | None]]
    ) -> _Granted:
        """Returns what `attempt` got; it gives None as long as no place is free, and may raise.

        Raises NoSeat when the room is full, or when the time is up.
        """
        self._make_room(priority)
        turn: asyncio.Future[_Granted] = asyncio.get_running_loop().create_future()
        seat = _Seat(keys, attempt, turn)
        self._seats[priority].append(seat)
        self.wake()  # the place may have come free since it was asked for
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await turn
        except BaseException as problem:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().give_back()  # it came at the same moment
            if isinstance(problem, TimeoutError):
                raise NoSeat(f"none was free within {self._wait_seconds:g} s") from None
            raise
        finally:
            turn.cancel()
            if seat in self._seats[priority]:
                self._seats[priority].remove(seat)

    def _make_room(self, priority: Priority) -> None:
        waiting = len(self)
        if priority is Priority.LOW and 2 * waiting >= self._most:
            raise NoSeat("too many wait for a request of low priority")
        if waiting < self._most:
            return
        lower = next((seats for below, seats in self._seats.items() if below < priority and seats), None)
        if lower is None:
            raise NoSeat("too many wait already")
        turn = lower.pop().turn
        if not turn.done():  # it may be giving up at the same moment
            turn.set_exception(NoSeat("a request of higher priority came"))

    def wake(self) -> None:
        """A place has come free, or may have."""
        self._awake.set()

    async def run(self) -> None:
        """Serves who waits, until it is cancelled."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            await self._serve()

    async def _serve(self) -> None:
        """One look at each, in order; nobody is asked for again who wants what somebody before him did not get."""
        refused: set[tuple[str, ...]] = set()
        for seat in list(self._in_order()):
            if seat.turn.done() or seat.keys in refused:
                continue
            try:
                granted = await seat.attempt()
            except Exception as problem:  # noqa: BLE001  # it is the waiting request's to handle
                self._leave(seat)
                if not seat.turn.done():
                    seat.turn.set_exception(problem)
                continue
            if granted is None:
                refused.add(seat.keys)
            elif seat.turn.done():  # gave up meanwhile
                granted.give_back()
            else:
                self._leave(seat)
                seat.turn.set_result(granted)

    def _leave(self, seat: _Seat[_Granted]) -> None:
        for seats in self._seats.values():
            if seat in seats:
                seats.remove(seat)

    def _in_order(self) -> Iterator[_Seat[_Granted]]:
        for priority in sorted(self._seats, reverse=True):
            yield from self._seats[priority]
