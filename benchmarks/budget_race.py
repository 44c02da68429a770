"""A crowd at a budget: 200 calls at once for money that is enough for 100, over 1 or 4 processes, one of them killed.

python -m benchmarks.budget_race --processes 4 --kill --rounds 5 --database sqlite|postgres
python -m benchmarks.budget_race --workers 4 --kill

The processes are gateways of their own, or the workers of one.

Every call costs what is set aside for it, so exactly 100 calls can be paid. After the crowd (and after somebody has
adopted what a killed process left) more calls are made until all are refused. What must hold in the end:

  over-admissions   calls beyond 100 that the upstream saw, or that were charged (also those that a kill interrupted)
  phantom blocks    money that is neither spent nor free

Claim: README: budgets hold under any crowd.
Short: --processes 2 --rounds 1
Short: --workers 2 --rounds 1
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import aiohttp

from benchmarks.access_cost import database_of, insert
from benchmarks.gateways import Gateway, gateway, until_all_is_booked, until_all_serve
from benchmarks.load import until, write_config
from benchmarks.processes import children, descriptors
from benchmarks.upstreams import BadUpstream, serving
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.budgets import Budget, Period, Window
from proxy.infrastructure.persistence import access_rows
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import session

_PRICE_USD = Decimal("0.01")
_AFFORDABLE, _CROWD = 100, 200
_KILLED_AFTER_CALLS = 30


@dataclass
class Race:
    """One round, and what came of it."""

    url: str
    budget: Budget
    upstream: BadUpstream
    statuses: Counter[int]
    workers: int

    async def call(self, http: aiohttp.ClientSession, at: Gateway) -> int:
        body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
        with suppress(aiohttp.ClientError, ConnectionError):
            async with http.post(f"{at.url}/v1/chat/completions", json=body) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
                return answer.status
        self.statuses[0] += 1
        return 0

    async def crowd(self, http: aiohttp.ClientSession, gateways: list[Gateway], *, kill: bool) -> None:
        calls = [asyncio.create_task(self.call(http, gateways[n % len(gateways)])) for n in range(_CROWD)]
        if kill:
            await until(lambda: self.upstream.calls >= _KILLED_AFTER_CALLS)
            await self.kill(gateways[0])
        await asyncio.gather(*calls)

    async def kill(self, one: Gateway) -> None:
        """A whole gateway, or the worker that has most connections."""
        if self.workers == 1:
            await one.kill()
        else:
            busiest = max(children(one.process.pid), key=descriptors)
            os.kill(busiest, signal.SIGKILL)

    async def rest(self, http: aiohttp.ClientSession, gateways: list[Gateway]) -> None:
        """Until every gateway refuses; of workers, whoever is asked."""
        asked = [each for each in gateways for _ in range(1 if self.workers == 1 else 3 * self.workers)]
        refusing = 0
        while refusing < len(asked):
            refusing = 0
            for each in asked:
                refusing += await self.call(http, each) == 429

    async def spent_and_leased(self) -> tuple[Decimal, Decimal]:
        async with open_database(self.url) as database, session(database) as to:
            spent = await to.fetch("SELECT picodollars FROM budget_spend")
            leased = await to.fetch("SELECT granted - booked FROM budget_leases")
        unit = Decimal(10) ** -12
        return sum(int(row[0]) for row in spent) * unit, sum(int(row[0]) for row in leased) * unit


async def one_round(kind: str, processes: int, workers: int, *, kill: bool) -> bool:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = database_of(kind, directory, stack.enter_context(ExitStack()))
        amount = _PRICE_USD * _AFFORDABLE
        budget = Budget(id=uuid4(), name="race", subject=GATEWAY, amount_usd=amount, window=Window(Period.TOTAL))
        async with open_database(url) as database:
            await migrate(database)
            async with session(database) as to:
                columns = (*access_rows.BUDGET_COLUMNS, "created_at")
                await insert(to, "budgets", columns, (*access_rows.budget_row(budget), datetime.now(UTC)))
        upstream = BadUpstream("up", seconds=0.3)
        await stack.enter_async_context(serving(upstream))
        config = directory / "gateway.yaml"
        prices = {"input_usd_per_1m_tokens": 0, "output_usd_per_1m_tokens": 0, "request_fee_usd": float(_PRICE_USD)}
        chat = {"deployments": [{"provider": "up", "model": "m", "prices": prices}]}
        write_config(config, {"up": upstream.url}, models={"chat": chat})
        more = {"LLMGATEWAY_CONFIG": str(config), "LLMGATEWAY_REQUIRE_KEYS": "never"}
        more["LLMGATEWAY_WORKERS"] = str(workers)
        gateways = [
            await stack.enter_async_context(gateway(directory, upstream.url, url, **more)) for _ in range(processes)
        ]
        await until_all_serve(directory, processes * workers)
        race = Race(url, budget, upstream, Counter(), workers)
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # each call may come to any worker
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        await race.crowd(http, gateways, kill=kill)
        in_the_crowd = upstream.calls
        alive = [each for each in gateways if each.is_alive]
        if not alive:
            alive = [await stack.enter_async_context(gateway(directory, upstream.url, url, **more))]
        await until_all_is_booked(directory, [each.url for each in alive], workers=workers)
        await race.rest(http, alive)
        await until_all_is_booked(directory, [each.url for each in alive], workers=workers)
        spent, leased = await race.spent_and_leased()
        over = max(0, upstream.calls - _AFFORDABLE, int((spent - amount) / _PRICE_USD))
        phantom = max(Decimal(0), amount - spent)
        print(
            f"{kind}, {f'{workers} workers' if workers > 1 else f'{processes} processes'}"
            f"{', one killed' if kill else ''}: {in_the_crowd} calls of the crowd went "
            f"upstream, {upstream.calls - in_the_crowd} after it; spent {spent:f} of {amount} USD, leased {leased:f}; "
            f"over-admissions {over}, phantom blocks {phantom / _PRICE_USD:f} calls; {dict(race.statuses)}",
            flush=True,
        )
        return over == 0 and spent == amount and leased == 0


async def run(kind: str, rounds: int, processes: int, workers: int, *, kill: bool) -> bool:
    good = [await one_round(kind, processes, workers, kill=kill) for _ in range(rounds)]
    print(f"{sum(good)} of {rounds} rounds without over-admissions and phantom blocks")
    return all(good)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="one gateway with so many, instead of processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill", action="store_true", help="one process, in the middle of the crowd")
    given = parser.parse_args()
    processes = 1 if given.workers > 1 else given.processes
    good = asyncio.run(run(given.database, given.rounds, processes, given.workers, kill=given.kill))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
