"""Rows and traces to store and to find again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace, TracedAttempt, TracedCandidate, TracedDrop
from proxy.domain.values import CostAmount, ModelName
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.traces import TraceRow, TraceRows

PLAIN = RequestTrace(
    "weighted", (TracedCandidate("a/x", "x", "weight 1"),), attempts=(TracedAttempt("a/x", "x", 200, seconds=0.5),)
)
FALLEN_BACK = RequestTrace(
    "weighted",
    (
        TracedCandidate("openrouter/x", "z-ai/glm-4.6", "weight 3"),
        TracedCandidate("azure/y", "gpt-y", "fallback of m", is_fallback=True),
    ),
    (TracedDrop("groq/z", "z", "capability", "no vision"),),
    (
        TracedAttempt("openrouter/x", "z-ai/glm-4.6", 429, "http_429", calls=3, queued_seconds=0.25, seconds=0.21),
        TracedAttempt("azure/y", "gpt-y", 200, seconds=0.8, cost=CostAmount(Decimal("0.00125"))),
    ),
)


def row(request_id: str = "r", **members: Any) -> RequestLog:
    return RequestLog(model=ModelName("m/x"), provider_name="p", request_id=request_id, **members)


def trace_row(of: RequestLog, trace: RequestTrace = FALLEN_BACK) -> TraceRow:
    return TraceRow(of.id, of.request_id, of.timestamp, trace.compact())


async def book(database: Database, *booked: tuple[RequestLog, RequestTrace | None]) -> None:
    """Rows, and the traces of those that have one."""
    await PiccoloRequestLogs(database).save_all([row for row, _ in booked])
    if traces := [trace_row(row, trace) for row, trace in booked if trace is not None]:
        await TraceRows(database).write(traces)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, once on each engine."""
    async with open_database(database_url) as database:
        yield database
