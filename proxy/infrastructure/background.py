"""Writing to the database in the background, where losing some is better than waiting: this is not the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_the_row

_logger = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 10.0
_FLUSH_SECONDS = 5.0


class _HasId(Protocol):
    @property
    def id(self) -> UUID: ...


_Item = TypeVar("_Item")
_Row = TypeVar("_Row", bound=_HasId)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait, those of the batch in hand included, and how much is written at once.

    `gather_seconds` is waited for a batch to fill; `first_pause_seconds` after the database's first refusal, and twice
    as long after each further one.
    """

    queue_items: int
    queue_bytes: int
    batch_items: int
    batch_bytes: int
    gather_seconds: float = 0.2
    first_pause_seconds: float = 0.5


class BackgroundWriter(Generic[_Item, _Row]):
    """A bounded queue and the task behind it: `offer` only queues, `run` makes rows of what waits and writes them.

    One item that is larger than the whole queue is taken when nothing else waits. `prepare` makes rows of a batch, in
    its own time; `write` raises DATABASE_ERRORS, and then none of its rows is stored. `what` names them in logs.
    """

    def __init__(
        self,
        what: str,
        size_of: Callable[[_Item], int],
        prepare: Callable[[Sequence[_Item]], Awaitable[list[_Row]]],
        write: Callable[[Sequence[_Row]], Awaitable[None]],
        bounds: Bounds,
    ) -> None:
        self._what = what
        self._size_of = size_of
        self._prepare = prepare
        self._write_rows = write
        self._bounds = bounds
        self._queue: deque[_Item] = deque()
        self._in_hand = 0
        self._held_bytes = 0
        self._stored = self._dropped = self._refused = 0
        self._last_error: str | None = None
        self._is_dropping = False
        self._something_waits = asyncio.Event()
        self._stopping = asyncio.Event()

    def offer(self, item: _Item) -> None:
        """Returns at once; drops the item when too much waits."""
        size = self._size_of(item)
        waiting = len(self._queue) + self._in_hand
        if waiting >= self._bounds.queue_items or (waiting and self._held_bytes + size > self._bounds.queue_bytes):
            self._drop()
            return
        self._held_bytes += size
        self._queue.append(item)
        self._something_waits.set()

    def state(self) -> Mapping[str, Any]:
        """For the health report."""
        return {
            "waiting": len(self._queue) + self._in_hand,
            "waiting_bytes": self._held_bytes,
            "stored": self._stored,
            "dropped": self._dropped,
            "refused": self._refused,
            "last_error": self._last_error,
        }

    def _drop(self) -> None:
        self._dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            _logger.warning("%s are dropped: too many wait", self._what, extra={"last_error": self._last_error})

    async def run(self) -> None:
        """Stores what is offered until `stop`, and then what still waits."""
        while True:
            await self._something_waits.wait()
            if len(self._queue) < self._bounds.batch_items and not self._stopping.is_set():
                await self._pause(self._bounds.gather_seconds)
            while batch := self._next_batch():
                await self._store(batch)
            self._something_waits.clear()
            if self._stopping.is_set():
                return

    def stop(self) -> None:
        """Let `run` end when nothing waits any more."""
        self._stopping.set()
        self._something_waits.set()

    def give_up(self) -> None:
        """What waits is dropped."""
        left = len(self._queue) + self._in_hand
        if left:
            self._dropped += left
            self._queue.clear()
            self._in_hand = self._held_bytes = 0
            _logger.warning("%s dropped at the end", self._what, extra={"count": left})

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < self._bounds.batch_items and size < self._bounds.batch_bytes:
            batch.append(self._queue.popleft())
            size += self._size_of(batch[-1])
        self._in_hand = len(batch)
        return batch

    async def _store(self, batch: list[_Item]) -> None:
        held = sum(map(self._size_of, batch))
        try:
            rows = await self._prepare(batch)
            batch.clear()  # what the rows were made of is needed no more, however long the database is away
            self._in_hand = len(rows)
            if rows:
                await self._write(rows)
        except Exception:  # a defect here must not end the task
            self._dropped += self._in_hand
            _logger.exception("%s not stored", self._what)
        self._in_hand = 0
        self._held_bytes -= held

    async def _write(self, rows: list[_Row]) -> None:
        """Tries until the database takes them; pauses ever longer while it is away."""
        pause = self._bounds.first_pause_seconds
        while True:
            try:
                await self._write_rows(rows)
            except DATABASE_ERRORS as problem:
                if is_about_the_row(problem):
                    self._last_error = None  # it answers
                    await self._write_apart(rows, problem)
                    return
                self._last_error = type(problem).__name__
                await self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self._stored += len(rows)
                self._last_error = None
                self._is_dropping = False
                return

    async def _write_apart(self, rows: list[_Row], problem: BaseException) -> None:
        if len(rows) == 1:
            self._refused += 1
            facts = {"row": str(rows[0].id), "reason": type(problem).__name__}
            _logger.error("one of the %s refused", self._what, extra=facts)
            return
        for row in rows:
            await self._write([row])

    async def _pause(self, seconds: float) -> None:
        """Also while stopping the database gets its pauses, if shorter ones."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, self._bounds.first_pause_seconds))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


@asynccontextmanager
async def writing(
    writer: BackgroundWriter[Any, Any], name: str, flush_seconds: float = _FLUSH_SECONDS
) -> AsyncIterator[None]:
    """Runs the writer's task; at the end what waits is stored if that takes no longer than `flush_seconds`."""
    task = asyncio.create_task(writer.run(), name=name)
    try:
        yield
    finally:
        writer.stop()
        await asyncio.wait([task], timeout=flush_seconds)
        task.cancel()
        await asyncio.wait([task])
        writer.give_up()
