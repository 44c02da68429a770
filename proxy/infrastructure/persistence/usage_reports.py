"""Reports of usage: days and hours that have ended from their sums, what has none yet from the rows.

The rule that keeps both in step is in `usage_rollups.py`. A report is read as of one moment, so a row is counted in one
of them. Where retention has taken the rows, a report's bounds are widened to whole hours.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, auto

from proxy.domain.request_log import CostSource
from proxy.domain.usage_report import OWNERS, Dimension, Usage, UsageQuery, UsageReport
from proxy.domain.values import name_or_unknown
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.owners import (
    OwnedBy,
    arguments,
    check_there,
    condition,
    meant_by,
    names_of,
    within,
)
from proxy.infrastructure.persistence.sessions import Session, session
from proxy.infrastructure.persistence.usage_rollups import (
    BEGINNING,
    DAY,
    HOUR,
    RollupState,
    ceiling,
    floor,
    read_state,
)
from proxy.infrastructure.persistence.usage_sql import UsageSql

_END = datetime(9999, 12, 31, tzinfo=UTC)
_TIMEOUT_SECONDS = 60.0
_MILLION = 10**6
_NAMED = (Dimension.MODEL, Dimension.PROVIDER)


class Source(Enum):
    """Where a part of a report is read."""

    DAYS = auto()
    HOURS = auto()
    ROWS = auto()
    LATE_ROWS = auto()


@dataclass(frozen=True, slots=True)
class Segment:
    """A span of time, and where what happened in it is read."""

    source: Source
    start: datetime
    end: datetime


def segments(query: UsageQuery, state: RollupState) -> list[Segment]:
    """The fewest spans that answer the query; each row is in exactly one of them."""
    since, until = query.since or BEGINNING, query.until or _END
    if since < state.sealed_until:
        since = floor(since, HOUR)
    if until < state.sealed_until:
        until = ceiling(until, HOUR)
    return [segment for segment in _cut(since, until, state) if segment.start < segment.end]


def _cut(since: datetime, until: datetime, state: RollupState) -> Iterator[Segment]:
    first, last = ceiling(since, HOUR), min(floor(until, HOUR), state.rolled_until)
    if first >= last:
        yield Segment(Source.ROWS, since, until)
    else:
        yield Segment(Source.ROWS, since, first)
        for hour in (*state.changed, last):
            if first <= hour <= last:
                yield from _rolled_up(first, hour)
                first = min(hour + HOUR, last)
                yield Segment(Source.ROWS, hour, first)
        yield Segment(Source.ROWS, last, until)
    yield Segment(Source.LATE_ROWS, since, min(until, state.sealed_until))


def _rolled_up(start: datetime, end: datetime) -> Iterator[Segment]:
    day, last_day = ceiling(start, DAY), floor(end, DAY)
    if day >= last_day:
        yield Segment(Source.HOURS, start, end)
        return
    yield Segment(Source.HOURS, start, day)
    yield Segment(Source.DAYS, day, last_day)
    yield Segment(Source.HOURS, last_day, end)


class LedgerUsageReports:
    """UsageReports on either engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, query: UsageQuery) -> UsageReport:
        groups: defaultdict[str, Usage] = defaultdict(Usage)
        try:
            async with (
                asyncio.timeout(_TIMEOUT_SECONDS),
                session(self._database) as reader,
                reader.snapshot(writing=False),
            ):
                owned = [*within(query.within), *await meant_by(reader, query.of)]
                reading = _Reading(reader, query.by, owned, groups)
                for segment in segments(query, await read_state(reader)):
                    await reading.add_sums(segment)
                    await reading.add_times(segment)
                if not groups:
                    await check_there(reader, query.of, query.within)
                scope = OWNERS.get(query.by)
                names = {} if scope is None else await names_of(reader, scope, groups)
        except DATABASE_ERRORS as problem:
            raise not_serving(problem) from problem
        return UsageReport.of(query, groups, names)

    async def total_cost(self, since: datetime) -> Decimal:
        """The exact sum of known costs from that time on. Raises DATABASE_ERRORS."""
        groups: defaultdict[str, Usage] = defaultdict(Usage)
        query = UsageQuery(Dimension.STATUS, since.astimezone(UTC))
        async with session(self._database) as reader, reader.snapshot(writing=False):
            reading = _Reading(reader, query.by, (), groups)
            for segment in segments(query, await read_state(reader)):
                await reading.add_sums(segment)
        return UsageReport.of(query, groups).total().cost_usd()


class _Reading:
    """One report as it grows in `groups`."""

    def __init__(
        self, reader: Session, by: Dimension, owned: Sequence[OwnedBy], groups: defaultdict[str, Usage]
    ) -> None:
        self._reader = reader
        self._by = by
        self._sql = UsageSql(
            is_postgres=reader.is_postgres,
            only_rows=condition(owned, first_place=3),
            only_sums=condition(owned, first_place=3, of_sums=True),
        )
        self._owners = arguments(owned)
        self._groups = groups

    async def add_sums(self, segment: Segment) -> None:
        by = self._by
        statement = {
            Source.DAYS: self._sql.sums_of_rollup(by, "usage_daily"),
            Source.HOURS: self._sql.sums_of_rollup(by, "usage_hourly"),
            Source.ROWS: self._sql.sums_of_rows(by),
            Source.LATE_ROWS: self._sql.sums_of_late_rows(by),
        }[segment.source]
        for row in await self._reader.fetch(statement, segment.start, segment.end, *self._owners):
            name, cost_source, rows, input_tokens, output_tokens, unknown, micro, pico, requests, errors = row
            usage = Usage(requests, errors, input_tokens, output_tokens, unknown)
            if rows > unknown and cost_source != CostSource.NONE:
                usage.picodollars[cost_source] = micro * _MILLION + pico
            self._group(name).add(usage)

    async def add_times(self, segment: Segment) -> None:
        by = self._by
        statement = {
            Source.DAYS: self._sql.times_of_rollup(by, "usage_daily"),
            Source.HOURS: self._sql.times_of_rollup(by, "usage_hourly"),
            Source.ROWS: self._sql.times_of_rows(by),
            Source.LATE_ROWS: self._sql.times_of_late_rows(by),
        }[segment.source]
        found = await self._reader.fetch(statement, segment.start, segment.end, *self._owners)
        for name, measure, bucket, count in found:
            usage = self._group(name)
            times = usage.response_times if measure == "response_times" else usage.first_byte_times
            times[bucket] += count

    def _group(self, name: str) -> Usage:
        """Of requests that are named so; a blank name is read as it is in rows."""
        return self._groups[name_or_unknown(name) if self._by in _NAMED else name]
