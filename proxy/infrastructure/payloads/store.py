"""Storing payloads in the background: a bounded queue, a thread that compresses, batches for the database."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

from proxy.application.payloads import Capture, PayloadMode, Redaction
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.infrastructure.payloads.preparing import PayloadRow, RedactionFailed, prepare
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_the_row

_logger = logging.getLogger(__name__)
_QUEUE_ITEMS = 2_000
_QUEUE_BYTES = 32 * 1024 * 1024
_BATCH_ITEMS = 50
_BATCH_BYTES = 4 * 1024 * 1024
_GATHER_SECONDS = 0.2
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_FLUSH_SECONDS = 5.0

_Item = tuple[RequestLog, Capture]


class PayloadWriter(Protocol):
    """Where rows go."""

    async def write(self, rows: Sequence[PayloadRow]) -> None:
        """Raises DATABASE_ERRORS; then none of the rows is stored."""
        ...


class BackgroundPayloads:
    """PayloadStore whose `offer` only queues references; `run` does the work.

    The queue is bounded in items and in the bytes that they hold on to, those of the batch in hand included. One body
    that is larger than all of that is taken when nothing else waits.
    """

    is_on = True

    def __init__(
        self,
        writer: PayloadWriter,
        mode: PayloadMode,
        max_bytes: int,
        redaction: Redaction | None = None,
        *,
        queue_items: int = _QUEUE_ITEMS,
        queue_bytes: int = _QUEUE_BYTES,
        gather_seconds: float = _GATHER_SECONDS,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        self.max_bytes = max_bytes
        self._writer = writer
        self._mode = mode
        self._redaction = redaction
        self._queue_items = queue_items
        self._queue_bytes = queue_bytes
        self._gather_seconds = gather_seconds
        self._first_pause_seconds = first_pause_seconds
        self._queue: deque[_Item] = deque()
        self._in_hand = 0
        self._held_bytes = 0
        self._stored = self._dropped = self._redaction_failures = self._refused = 0
        self._last_error: str | None = None
        self._is_dropping = False
        self._something_waits = asyncio.Event()
        self._stopping = asyncio.Event()

    # The port.

    def offer(self, row: RequestLog, capture: Capture) -> None:
        if self._mode is PayloadMode.ERRORS and row.status in (RequestStatus.SUCCESS, RequestStatus.REPLAYED):
            return
        size = capture.held_bytes()
        waiting = len(self._queue) + self._in_hand
        if waiting >= self._queue_items or (waiting and self._held_bytes + size > self._queue_bytes):
            self._drop()
            return
        self._held_bytes += size
        self._queue.append((row, capture))
        self._something_waits.set()

    def state(self) -> Mapping[str, Any]:
        return {
            "mode": self._mode.value,
            "waiting": len(self._queue) + self._in_hand,
            "waiting_bytes": self._held_bytes,
            "stored": self._stored,
            "dropped": self._dropped,
            "redaction_failures": self._redaction_failures,
            "refused": self._refused,
            "last_error": self._last_error,
        }

    def _drop(self) -> None:
        self._dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            _logger.warning("payloads are dropped: too many wait", extra={"last_error": self._last_error})

    # Its task.

    async def run(self) -> None:
        """Stores what is offered until `stop`, and then what still waits."""
        while True:
            await self._something_waits.wait()
            await self._pause(self._gather_seconds if len(self._queue) < _BATCH_ITEMS else 0)
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
            _logger.warning("payloads dropped at the end", extra={"payloads": left})

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < _BATCH_ITEMS and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += batch[-1][1].held_bytes()
        self._in_hand = len(batch)
        return batch

    async def _store(self, batch: list[_Item]) -> None:
        held = sum(capture.held_bytes() for _, capture in batch)
        try:
            rows, failures = await asyncio.to_thread(_prepared, batch, self._redaction)
            batch.clear()  # the bodies are needed no more, however long the database is away
            if failures:
                self._redaction_failures += len(failures)
                _logger.error("payloads not stored: redaction failed", extra={"reasons": sorted(set(failures))})
            self._in_hand = len(rows)
            if rows:
                await self._write(rows)
        except Exception:  # a defect here must not end the task
            self._dropped += self._in_hand
            _logger.exception("payloads not stored")
        self._in_hand = 0
        self._held_bytes -= held

    async def _write(self, rows: list[PayloadRow]) -> None:
        """Tries until the database takes them; pauses ever longer while it is away."""
        pause = self._first_pause_seconds
        while True:
            try:
                await self._writer.write(rows)
            except DATABASE_ERRORS as problem:
                if is_about_the_row(problem):
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

    async def _write_apart(self, rows: list[PayloadRow], problem: BaseException) -> None:
        if len(rows) == 1:
            self._refused += 1
            _logger.error("payload refused", extra={"row": str(rows[0].id), "reason": type(problem).__name__})
            return
        for row in rows:
            await self._write([row])

    async def _pause(self, seconds: float) -> None:
        """While stopping there is no time to gather, but the database gets its pauses still."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, self._first_pause_seconds))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _prepared(batch: Sequence[_Item], redaction: Redaction | None) -> tuple[list[PayloadRow], list[str]]:
    """Rows, and why the other payloads have none."""
    rows, failures = [], []
    for row, capture in batch:
        try:
            rows.append(prepare(row, capture, redaction))
        except RedactionFailed as problem:
            failures.append(str(problem))
    return rows, failures


@asynccontextmanager
async def storing(store: BackgroundPayloads, flush_seconds: float = _FLUSH_SECONDS) -> AsyncIterator[None]:
    """Runs the store's task; at the end what waits is stored if that takes no longer than `flush_seconds`."""
    task = asyncio.create_task(store.run(), name="payloads")
    try:
        yield
    finally:
        store.stop()
        await asyncio.wait([task], timeout=flush_seconds)
        task.cancel()
        await asyncio.wait([task])
        store.give_up()
