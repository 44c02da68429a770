"""Sums of each hour and day, kept up to date beside the rows they are made from.

The rule that nothing is lost and nothing counted twice by:

1. An hour is rolled up two minutes after it has ended, from its rows, and a day from its hours. Doing it again replaces
   the sums.
2. Whatever writes a row into an hour that has ended, or changes one there, also notes the hour in `usage_changes`; a
   trigger does it, in the same transaction. Spools that are replayed and costs that are corrected later are noted so.
3. A noted hour is rolled up again, and its notes are taken away, as of one moment. Until then reports read its rows.
4. Rows of an hour that is still running are not noted. On PostgreSQL one may be written but not committed when the hour
   ends: before an hour is rolled up for the first time, those who write are waited for, by a lock held for no longer.
   The trigger reads the clock after its statement has got its own lock, so who comes later notes the hour.
5. Hours before `sealed_until` have lost rows to retention, so they are never rolled up again. A row that comes later
   still is added to their sums once: its note, which names it, goes in the same transaction. Its later changes are not.
   One that was booked, dropped and then is replayed from a spool of before is not written again: the spool knows how
   far it has been booked. Only the batch in whose writing a process died could be, if it is adopted that late.

The clock is the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from proxy.infrastructure.persistence.sessions import PostgresSession, Session, moment
from proxy.infrastructure.persistence.usage_sql import UsageSql

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
LOCK_TIMEOUT_MS = 3000  # others wait behind a lock that waits
_POSTGRES_ENDED = "SELECT date_trunc('hour', clock_timestamp() - INTERVAL '2 minutes', 'UTC')"
_SQLITE_ENDED = "SELECT strftime('%Y-%m-%d %H:00:00+00:00', 'now', '-2 minutes')"
# What is sealed stays: it has no rows any more.
_GO_BACK = """UPDATE usage_state SET rolled_until = CASE WHEN sealed_until > $1 THEN sealed_until ELSE $1 END
    WHERE rolled_until > $1"""


@dataclass(frozen=True, slots=True)
class RollupState:
    """Hours before `rolled_until` have sums; of those, the ones before `sealed_until` may have lost rows.

    `changed` are the hours between whose sums are out of date.
    """

    rolled_until: datetime = BEGINNING
    sealed_until: datetime = BEGINNING
    changed: Sequence[datetime] = ()


async def read_state(session: Session) -> RollupState:
    """The state as the session's transaction sees it."""
    ((rolled, sealed),) = await session.fetch("SELECT rolled_until, sealed_until FROM usage_state")
    state = RollupState(moment(rolled) or BEGINNING, moment(sealed) or BEGINNING)
    changed = await session.fetch(
        "SELECT DISTINCT hour FROM usage_changes WHERE hour >= $1 AND hour < $2 ORDER BY hour",
        state.sealed_until,
        state.rolled_until,
    )
    hours = [hour for row in changed if (hour := moment(row[0])) is not None]
    return RollupState(state.rolled_until, state.sealed_until, hours)


async def roll_up(session: Session) -> None:
    """Brings all sums up to date. At most one session at a time on PostgreSQL; SQLite's transactions see to it."""
    await _roll_up_ended_hours(session)
    for start, end in _spans((await read_state(session)).changed):
        async with session.snapshot(writing=True):
            await _sum_up(session, start, end)
    await _fold_late_rows(session)


async def _fold_late_rows(session: Session) -> None:
    """Adds the rows that came after their hour was sealed."""
    late = "FROM usage_changes WHERE hour < (SELECT sealed_until FROM usage_state)"
    if not await session.fetch(f"SELECT 1 {late} LIMIT 1"):
        return
    sql = UsageSql(is_postgres=session.is_postgres)
    async with session.snapshot(writing=True):
        hours = await session.fetch(f"SELECT DISTINCT hour {late}")
        await session.execute(sql.fold_late_rows())
        await session.execute(f"DELETE {late}")
        for day in sorted({floor(hour, DAY) for row in hours if (hour := moment(row[0])) is not None}):
            await _sum_up_days(session, day, day + DAY)


async def resum_changed(session: Session, before: datetime) -> None:
    """Brings changed hours up to date within the caller's transaction."""
    for start, end in _spans([hour for hour in (await read_state(session)).changed if hour < before]):
        await _sum_up(session, start, end)


async def _roll_up_ended_hours(session: Session) -> None:
    ((hour,),) = await session.fetch(_POSTGRES_ENDED if session.is_postgres else _SQLITE_ENDED)
    ended = moment(hour) or BEGINNING
    start = (await read_state(session)).rolled_until
    if start > ended:
        await session.execute(_GO_BACK, ended)
    if start >= ended:
        return
    if isinstance(session, PostgresSession):
        async with session.locked("request_logs", "SHARE", LOCK_TIMEOUT_MS):
            pass  # whoever wrote without noting the hour has ended by now
    while start < ended:
        ((first,),) = await session.fetch(
            "SELECT MIN(timestamp) FROM request_logs WHERE timestamp >= $1 AND timestamp < $2", start, ended
        )
        begin = floor(moment(first) or ended, HOUR)
        start = min(floor(begin, DAY) + DAY, ended)
        async with session.snapshot(writing=True):
            await _sum_up(session, begin, start)
            await session.execute(
                "UPDATE usage_state SET rolled_until = $1 WHERE rolled_until IS NULL OR rolled_until < $1", start
            )


async def _sum_up(session: Session, start: datetime, end: datetime) -> None:
    """Replaces the sums of a span of hours, but for those that are sealed by now."""
    start = max(start, (await read_state(session)).sealed_until)
    if start >= end:
        return
    await session.execute("DELETE FROM usage_changes WHERE hour >= $1 AND hour < $2", start, end)
    await session.execute("DELETE FROM usage_hourly WHERE start >= $1 AND start < $2", start, end)
    await session.execute(UsageSql(is_postgres=session.is_postgres).roll_up_hours(), start, end)
    await _sum_up_days(session, floor(start, DAY), ceiling(end, DAY))


async def _sum_up_days(session: Session, start: datetime, end: datetime) -> None:
    await session.execute("DELETE FROM usage_daily WHERE start >= $1 AND start < $2", start, end)
    await session.execute(UsageSql(is_postgres=session.is_postgres).roll_up_days(), start, end)


def _spans(hours: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Neighbouring hours of one day together."""
    spans: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if spans and spans[-1][1] == hour and floor(hour, DAY) != hour:
            spans[-1] = (spans[-1][0], hour + HOUR)
        else:
            spans.append((hour, hour + HOUR))
    return spans


def floor(time: datetime, unit: timedelta) -> datetime:
    """The start of the UTC hour or day that holds the time."""
    return time - (time - BEGINNING) % unit


def ceiling(time: datetime, unit: timedelta) -> datetime:
    """The time itself if an hour or day starts then, else the start of the next one, or the calendar's last moment."""
    return time + min((BEGINNING - time) % unit, _LAST - time)
