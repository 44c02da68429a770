"""Storing payloads in the background: a thread redacts and compresses them, and the database gets them in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from proxy.application.payloads import Capture, PayloadMode, Redaction
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.infrastructure.background import BackgroundWriter, Bounds, writing
from proxy.infrastructure.payloads.preparing import PayloadRow, RedactionFailed, prepare

_logger = logging.getLogger(__name__)
BOUNDS = Bounds(queue_items=2_000, queue_bytes=32 * 1024 * 1024, batch_items=50, batch_bytes=4 * 1024 * 1024)
_FLUSH_SECONDS = 5.0
_FINE = (RequestStatus.SUCCESS, RequestStatus.REPLAYED)

_Item = tuple[RequestLog, Capture]


class PayloadWriter(Protocol):
    """Where rows go."""

    async def write(self, rows: Sequence[PayloadRow]) -> None:
        """Raises DATABASE_ERRORS; then none of the rows is stored."""
        ...


class BackgroundPayloads:
    """PayloadStore over a BackgroundWriter: what is offered are references to bodies that are in memory anyway."""

    is_on = True

    def __init__(
        self,
        writer: PayloadWriter,
        mode: PayloadMode,
        max_bytes: int,
        redaction: Redaction | None = None,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.max_bytes = max_bytes
        self.queue = BackgroundWriter("payloads", _held_bytes, self._prepare, writer.write, bounds)
        self._mode = mode
        self._redaction = redaction
        self._redaction_failures = 0

    def offer(self, row: RequestLog, capture: Capture) -> None:
        if self._mode is not PayloadMode.ERRORS or row.status not in _FINE:
            self.queue.offer((row, capture))

    def state(self) -> Mapping[str, Any]:
        return {"mode": self._mode.value, **self.queue.state(), "redaction_failures": self._redaction_failures}

    async def _prepare(self, batch: Sequence[_Item]) -> list[PayloadRow]:
        rows, failures = await asyncio.to_thread(_prepared, batch, self._redaction)
        if failures:
            self._redaction_failures += len(failures)
            _logger.error("payloads not stored: redaction failed", extra={"reasons": sorted(set(failures))})
        return rows


def _held_bytes(item: _Item) -> int:
    return item[1].held_bytes()


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
    async with writing(store.queue, "payloads", flush_seconds):
        yield
