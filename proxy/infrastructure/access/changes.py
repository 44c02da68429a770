"""What changes in keys, teams, organisations, budgets and limits, told to those who keep them in memory.

Triggers note every change in `access_changes`. On PostgreSQL they also wake those who listen, so a change is heard of
at once; rows are read every few seconds all the same, since a notification may be lost (a connection pooler swallows
them). On SQLite rows are read several times a second. Whoever has lost the connection does not know what it has missed,
and is told that anything may have changed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from piccolo.engine.postgres import PostgresEngine

from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.server import new_connection
from proxy.infrastructure.persistence.sessions import PostgresSession, Session, session

_logger = logging.getLogger(__name__)
CHANNEL: Final = "llmgateway_access"
_LISTENING_LOOK_SECONDS, _POLLING_LOOK_SECONDS = 2.0, 0.3
_AGAIN_SECONDS = 1.0
_CATCH_UP_SECONDS = 1.0  # in which everybody hears of a change anyway
_TIMEOUT_SECONDS, _GRACE_SECONDS = 5.0, 2.0
_LATE_SECONDS = 60.0  # a transaction may commit so long after it was given its number
_MOST_ROWS, _ROWS_TO_REMEMBER, _ROWS_TO_KEEP = 2000, 1000, 100_000

# Newest first: what does not fit is old, and then everything is read again anyway.
_ROWS = "SELECT sequence, kind, object_id FROM access_changes WHERE sequence > $1 ORDER BY sequence DESC LIMIT $2"
_FORGET = "DELETE FROM access_changes WHERE sequence <= $1"


@dataclass(frozen=True, slots=True)
class Change:
    """One row that was added, changed or deleted. `kind` is its table."""

    kind: str
    object_id: str


Changes = Sequence[Change] | None  # None: anything may have changed
Subscriber = Callable[[Changes], None]


class ChangeFeed:
    """Tells its subscribers of changes, in the order in which they subscribed; they only take note."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self._is_told = False
        self._woken = asyncio.Event()
        self._confirmed = asyncio.Event()  # of the reading that goes on, or comes next
        self._is_ending = False
        self.confirmed_at = -math.inf  # by the clock: until then all changes are known

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    async def follow(self) -> None:
        """Runs until the end. While the database is away it tries again every second."""
        while not self._is_ending:
            try:
                async with self._connection() as reader:
                    await self._read_on(reader)
            except DATABASE_ERRORS as problem:
                self._say_once(problem)
            await self._wait(_AGAIN_SECONDS)

    async def caught_up(self) -> None:
        """Returns when what has been changed before is told, or after a second: whoever cannot read now will later."""
        asked_at = self._clock()
        self._woken.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                while self.confirmed_at < asked_at:
                    await self._confirmed.wait()

    def end(self) -> None:
        """What is being read is read to its end: a cancelled SQLite query leaves a thread behind."""
        self._is_ending = True
        self._woken.set()

    async def _wait(self, most_seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most_seconds):
                await self._woken.wait()
        if not self._is_ending:
            self._woken.clear()

    async def _read_on(self, reader: Session) -> None:
        interval_seconds = _LISTENING_LOOK_SECONDS if reader.is_postgres else _POLLING_LOOK_SECONDS
        window = _Window()
        while not self._is_ending:
            began = self._clock()
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                rows = await reader.fetch(_ROWS, window.floor, _MOST_ROWS)
            changes = window.take(rows, began)
            if changes is None or changes:
                for subscriber in self._subscribers:
                    subscriber(changes)
            if changes is None:
                self._is_told = False
                if window.highest > _ROWS_TO_KEEP:
                    await reader.execute(_FORGET, window.highest - _ROWS_TO_KEEP)
            self.confirmed_at = began
            self._confirmed.set()
            self._confirmed = asyncio.Event()
            await self._wait(interval_seconds)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Session]:
        """A connection of its own, which wakes this when there is something to read, or when it is lost."""
        engine = self._database.engine
        if not isinstance(engine, PostgresEngine):
            async with session(self._database) as reader:
                yield reader
            return
        connection = await new_connection(engine, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
        try:
            connection.add_termination_listener(lambda _connection: self._woken.set())
            await connection.add_listener(CHANNEL, lambda *_notification: self._woken.set())
            yield PostgresSession(connection)
        finally:
            connection.terminate()

    def _say_once(self, problem: Exception) -> None:
        if not self._is_told:
            _logger.warning(
                "changes of keys are not heard of, what is known is used meanwhile",
                extra={"reason": type(problem).__name__},
            )
        self._is_told = True


class _Window:
    """Which rows were seen. Rows below `floor` are not asked for again.

    Numbers are given when a row is written and rows are seen when they are committed, so a lower number may come later.
    """

    def __init__(self) -> None:
        self.floor = 0
        self.highest = 0
        self._seen: set[int] = set()
        self._heights: deque[tuple[float, int]] = deque()
        self._is_new = True

    def take(self, rows: Sequence[Sequence[Any]], now: float) -> Changes:
        """The changes of rows that were not seen before, oldest first. `rows` are the newest ones above the floor."""
        if self._is_new or len(rows) == _MOST_ROWS:
            self._begin([row[0] for row in rows], now)
            return None
        news = [row for row in reversed(rows) if row[0] not in self._seen]
        if news:
            self._seen.update(row[0] for row in news)
            self._rise(max(self.highest, rows[0][0]), now)
        while self._heights and self._heights[0][0] <= now - _LATE_SECONDS:
            self.floor = self._heights.popleft()[1]
            self._seen = {number for number in self._seen if number > self.floor}
        return [Change(kind, object_id) for _, kind, object_id in news]

    def _begin(self, numbers: Sequence[int], now: float) -> None:
        self._is_new = False
        self._heights.clear()
        self._seen = set(numbers[:_ROWS_TO_REMEMBER])
        if len(numbers) > _ROWS_TO_REMEMBER:
            self.floor = numbers[_ROWS_TO_REMEMBER]
        self._rise(max(self._seen, default=self.floor), now)

    def _rise(self, highest: int, now: float) -> None:
        self.highest = highest
        self._heights.append((now, highest))


@asynccontextmanager
async def following_changes(feed: ChangeFeed) -> AsyncIterator[None]:
    """Follows them in the background until the end; all subscribers must be there."""
    task = asyncio.create_task(feed.follow(), name="access changes")
    try:
        yield
    finally:
        feed.end()
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
