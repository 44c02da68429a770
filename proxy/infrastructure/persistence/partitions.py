"""The partitions of `request_logs` on PostgreSQL: made ahead of time, dropped when all in them is old.

Rows for which there is no partition go to `request_logs_default`, so that none is ever refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from proxy.infrastructure.persistence.sessions import PostgresSession
from proxy.infrastructure.persistence.usage_rollups import DAY, LOCK_TIMEOUT_MS, floor

_AHEAD = timedelta(days=7)
_DEFAULT = "request_logs_default"
_BOUNDS = re.compile(r"FROM \('(.+?)'\) TO \('(.+?)'\)")
_LIST = """
    SELECT part.relname, pg_get_expr(part.relpartbound, part.oid) FROM pg_inherits
    JOIN pg_class AS part ON part.oid = inhrelid WHERE inhparent = 'request_logs'::regclass
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """A table that holds the rows from `start` (included) to `end` (excluded)."""

    name: str
    start: datetime
    end: datetime


async def partitions(session: PostgresSession) -> list[Partition]:
    """All but the default one, in order. PostgreSQL tells their bounds in the session's time zone."""
    found = []
    for name, expression in await session.fetch(_LIST):
        if bounds := _BOUNDS.search(expression):
            start, end = (datetime.fromisoformat(text).astimezone(UTC) for text in bounds.groups())
            found.append(Partition(name, start, end))
    return sorted(found, key=lambda part: part.start)


async def make_partitions(session: PostgresSession, now: datetime, *, daily: bool) -> None:
    """Those for today and the next days: one for each day where rows are kept for days, else one for each month."""
    known = await partitions(session)
    today = floor(now, DAY)
    for start, end in missing_spans(known, today, today + _AHEAD, daily=daily):
        name = f"request_logs_{start:%Y%m%d}"
        async with session.locked("request_logs", "SHARE UPDATE EXCLUSIVE", LOCK_TIMEOUT_MS):
            span = f"timestamp >= '{start.isoformat()}' AND timestamp < '{end.isoformat()}'"
            await session.execute(f"LOCK TABLE {_DEFAULT} IN ACCESS EXCLUSIVE MODE")
            await session.execute(f"CREATE TABLE {name} (LIKE request_logs INCLUDING ALL)")
            await session.execute(
                f"WITH moved AS (DELETE FROM {_DEFAULT} WHERE {span} RETURNING *)"  # noqa: S608
                f" INSERT INTO {name} SELECT * FROM moved"
            )
            await session.execute(
                f"ALTER TABLE request_logs ATTACH PARTITION {name}"
                f" FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
            )


def missing_spans(
    known: list[Partition], first: datetime, last: datetime, *, daily: bool
) -> Iterator[tuple[datetime, datetime]]:
    """What is not covered from `first` to `last`, cut at the ends of days or months."""
    start = first
    while start <= last:
        holder = next((part for part in known if part.start <= start < part.end), None)
        if holder is not None:
            start = holder.end
            continue
        end = start + DAY if daily else (start.replace(day=1) + timedelta(days=32)).replace(day=1)
        end = min([end, *(part.start for part in known if part.start > start)])
        yield start, end
        start = end


async def drop(session: PostgresSession, part: Partition) -> None:
    """The rows are gone at once, without a trace to be vacuumed."""
    await session.execute(f"DROP TABLE {part.name}")
