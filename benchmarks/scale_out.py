"""Three gateways with data directories of their own, behind HAProxy, over one PostgreSQL and one Valkey.

    python -m benchmarks.scale_out --clients 24 --seconds 20

One figure after the other, each with what it should be: how requests spread; a rate limit and a hard budget under a
crowd; how long a revoked key is good anywhere; one Idempotency-Key, asked with at once; clients that hang up; a
provider that fails; a changed configuration file; a gateway killed (SIGKILL) under load; all gateways restarted in turn
under load; and the books afterwards.

Claim: docs/scaling.md: several gateways share limits, budgets, keys and books, and survive one another.
Short: --clients 8 --seconds 3 --crowd 100
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from benchmarks.access_cost import database_of
from benchmarks.farm import COOLDOWN_SECONDS, PRICE_USD, Farm, farm, until
from benchmarks.load import Figure
from benchmarks.upstreams import Fault, never

_OK, _UNAUTHORIZED, _TOO_MANY = 200, 401, 429
_LONG_SECONDS = 20.0
_FAILURES = 6  # more than open a breaker


@dataclass(frozen=True)
class Plan:
    """How much of it. `seconds` is how long load runs before and after what happens under it.

    `revoked_within_seconds` is how long a revoked key may be good: what is promised, or a bound on a busy machine.
    """

    clients: int = 24
    pause_seconds: float = 0.005
    seconds: float = 20.0
    crowd: int = 300
    revoked_within_seconds: float = 1.0


@dataclass
class Traffic:
    """What became of requests by their names; `failed` says how."""

    answered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        ways = f": {sorted(set(self.failed.values()))}" if self.failed else ""
        return f"{len(self.answered)} answered, {len(self.failed)} failed{ways}"


async def ask(
    site: Farm,
    key: str,
    name: str,
    *,
    at: str | None = None,
    model: str = "chat",
    headers: dict[str, str] | None = None,
    http: aiohttp.ClientSession | None = None,
) -> tuple[int, str]:
    """Status of one request, and its body if that is not a whole answer.

    It is named in its id and by its user, and is a stream if the name's number is even.
    """
    stream = int(name.rpartition("-")[2]) % 2 == 0
    body = {"model": model, "user": name, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    sent = {"Authorization": f"Bearer {key}", "x-request-id": name, **(headers or {})}
    async with (http or site.http).post(f"{at or site.url}/v1/chat/completions", json=body, headers=sent) as response:
        text = await response.text()
        is_whole = text.endswith("data: [DONE]\n\n") if stream else '"usage"' in text
        return response.status, "" if response.status == _OK and is_whole else text or "cut off"


@asynccontextmanager
async def traffic(
    site: Farm, key: str, name: str, plan: Plan, *, keeps_connections: bool = True
) -> AsyncIterator[Traffic]:
    """Clients that ask on and on until the end, each for its next answer when it has the last one."""
    seen, ending = Traffic(), asyncio.Event()

    async def client(number: int) -> None:
        turn = 0
        while not ending.is_set():
            turn += 1
            request = f"{name}-{number}-{turn}"
            try:
                status, trouble = await ask(site, key, request, http=http)
            except (aiohttp.ClientError, OSError) as problem:
                seen.failed[request] = type(problem).__name__
            else:
                if trouble:
                    seen.failed[request] = f"{status} {trouble[:200]}"
                else:
                    seen.answered.add(request)
            await asyncio.sleep(plan.pause_seconds)

    connector = aiohttp.TCPConnector(limit=0, force_close=not keeps_connections)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as group:
        for number in range(plan.clients):
            group.create_task(client(number))
        try:
            await asyncio.sleep(plan.seconds)
            yield seen
            await asyncio.sleep(plan.seconds)
        finally:
            ending.set()


class ScaleOut:
    """The steps, over one farm. `seen` is all of the load's traffic so far."""

    def __init__(self, site: Farm, plan: Plan) -> None:
        self._site = site
        self._plan = plan
        self.seen = Traffic()
        self._turns = itertools.count()

    async def key(self, name: str, **more: object) -> str:
        secret: str = (await self._site.administer("/keys", {"name": name, **more}))["key"]
        return secret

    async def crowd(self, key: str, name: str, count: int) -> list[int]:
        """So many requests at once, by their statuses."""
        answers = await asyncio.gather(*(ask(self._site, key, f"{name}-{number}") for number in range(count)))
        return [status for status, _ in answers]

    async def at_each_gateway(self, key: str, name: str) -> list[int]:
        """One request at each gateway, by their statuses. No two have the same name."""
        turn = next(self._turns)
        asking = (
            ask(self._site, key, f"{name}-{turn}-{number}", at=member.url)
            for number, member in enumerate(self._site.members)
        )
        return [status for status, _ in await asyncio.gather(*asking)]

    async def spread(self) -> Figure:
        """Many requests at once: how many each gateway gets."""
        statuses = await self.crowd(await self.key("spread"), "spread", self._plan.crowd)
        booked = {}
        await self._site.until_all_is_booked()
        for member in self._site.members:
            booked[member.name] = (await self._site.report(member))["ledger"]["booked_rows"]
        text = f"spread: {self._plan.crowd} requests, by gateway {booked}, answered {statuses.count(_OK)}"
        least = self._plan.crowd / len(booked) / 2
        return Figure(text, statuses.count(_OK) == self._plan.crowd and min(booked.values()) >= least)

    async def rate_limit(self) -> Figure:
        """Three times what a minute allows, at once."""
        limit = self._plan.crowd // 3
        key = await self.key("limited", requests_per_minute=limit)
        statuses = await self.crowd(key, "limited", self._plan.crowd)
        after = await self.at_each_gateway(key, "limited-after")
        text = (
            f"rate limit of {limit}: {statuses.count(_OK)} of {self._plan.crowd} let in, then at each gateway {after}"
        )
        exact = statuses.count(_OK) == limit and statuses.count(_TOO_MANY) == self._plan.crowd - limit
        return Figure(text, exact and set(after) == {_TOO_MANY})

    async def hard_budget(self) -> Figure:
        """Three times what can be paid, at once; then more until every gateway refuses."""
        affordable = self._plan.crowd // 3
        key = await self.key("poor", monthly_budget_usd=affordable * PRICE_USD)
        await self.crowd(key, "poor", self._plan.crowd)
        in_crowd = self._calls("poor")
        while set(await self.at_each_gateway(key, "poor-after")) != {_TOO_MANY}:
            pass
        calls = self._calls("poor")
        text = f"hard budget for {affordable} calls: {in_crowd} of a crowd of {self._plan.crowd}, {calls} in the end"
        return Figure(text, calls == affordable)

    def _calls(self, name: str) -> int:
        return sum(count for asked, count in self._site.upstream.asked.items() if asked.startswith(f"{name}-"))

    async def revocation(self) -> Figure:
        """A key that all gateways know is revoked through one of them."""
        key = await self.key("leaked")
        before = await self.at_each_gateway(key, "leaked")
        revoked = time.perf_counter()
        await self._site.administer("/keys/leaked/revoke", {}, at=self._site.members[0].url)

        async def is_dead() -> bool:
            return set(await self.at_each_gateway(key, "leaked-after")) == {_UNAUTHORIZED}

        await until(is_dead)
        seconds = time.perf_counter() - revoked
        text = f"revoked key: dead at all gateways after {seconds:.2f} s (each asked: {before} before)"
        return Figure(text, set(before) == {_OK} and seconds <= self._plan.revoked_within_seconds)

    async def idempotency(self) -> Figure:
        """Each key is sent four times at once, and once more when it has been answered."""
        key, count = await self.key("careful"), 10
        wrong = 0
        for number in range(count):
            headers, name = {"Idempotency-Key": f"key-{number}"}, f"careful-{number}"
            await asyncio.gather(*(ask(self._site, key, name, headers=headers) for _ in range(4)))
            await ask(self._site, key, name, headers=headers)
            wrong += self._site.upstream.asked[name] != 1
        return Figure(f"idempotency: {count} keys sent 5 times each, {wrong} called for more than once", wrong == 0)

    async def hanging_up(self) -> Figure:
        """Clients leave before the answer has begun: the balancer must tell the gateway, which then calls off."""
        key, count, usual = await self.key("hasty"), 6, self._site.upstream.seconds
        self._site.upstream.seconds = _LONG_SECONDS
        try:
            asking = [asyncio.create_task(ask(self._site, key, f"hasty-{number}")) for number in range(count)]
            await until(self._are_called("hasty", count))
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            began = time.perf_counter()
            statuses: dict[str, list[str]] = {}

            async def are_booked() -> bool:
                nonlocal statuses
                statuses = await self._rows("hasty-")
                return len(statuses) == count

            await until(are_booked)
        finally:
            self._site.upstream.seconds = usual
        booked = sorted({status for each in statuses.values() for status in each})
        text = (
            f"hang-ups: {count} told to the gateways and booked as {booked} after {time.perf_counter() - began:.1f} s"
        )
        return Figure(text, booked == ["client_disconnected"])

    def _are_called(self, name: str, count: int) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return self._calls(name) >= count

        return look

    async def outage(self) -> Figure:
        """The provider fails everywhere, until all breakers are open: what clients are told, and by whom."""
        site, key = self._site, await self.key("tenacious")
        site.upstream.fault = lambda: Fault.SERVER_ERROR
        for _ in range(_FAILURES):
            await self.at_each_gateway(key, "tenacious")
        opened = time.perf_counter()
        site.upstream.fault = never
        await asyncio.sleep(COOLDOWN_SECONDS / 2)  # for the balancer to see it, if it looks
        there, told = await site.in_rotation(), await ask(site, key, "tenacious-then-0")
        seconds = time.perf_counter() - opened

        async def is_over() -> bool:
            return set(await self.at_each_gateway(key, "tenacious-after")) == {_OK}

        await until(is_over)
        words = f"{told[0]} {told[1][:120]}"
        text = f"outage: {seconds:.1f} s after it {len(there)} gateways in rotation, clients are told {words}"
        return Figure(text, len(there) == len(site.members) and "provider_unavailable" in told[1])

    async def configuration(self) -> Figure:
        """A model is added to the file while requests run."""
        key = await self.key("follower")
        async with traffic(self._site, key, "follow", self._plan) as seen:
            versions = await self._versions()

            async def is_followed() -> bool:
                now = await self._versions()
                return len(now) == 1 and now != versions

            began = time.perf_counter()
            self._site.configure("chat", "added")
            await until(is_followed)
            seconds = time.perf_counter() - began
            answers = [
                (await ask(self._site, key, f"added-{number}", at=member.url, model="added"))[0]
                for number, member in enumerate(self._site.members)
            ]
        self._remember(seen)
        text = f"changed file: followed by all after {seconds:.2f} s, the new model {answers}, meanwhile {seen.summary}"
        return Figure(text, not seen.failed and set(answers) == {_OK})

    async def _versions(self) -> set[str]:
        reports = [await self._site.report(member) for member in self._site.members]
        return {report["configuration"]["version"] for report in reports}

    async def failover(self) -> Figure:
        """One gateway is killed under load, and comes back with the spool that it left.

        A connection for each request: on a kept one the balancer hangs up without a word, and without a log line.
        """
        victim, key = self._site.members[0], await self.key("unlucky")
        async with traffic(self._site, key, "failover", self._plan, keeps_connections=False) as seen:
            logged = len(self._site.log)
            await victim.kill()
            began = time.perf_counter()
            await self._site.until_in_rotation(lambda names: victim.name not in names)
            noticed = time.perf_counter() - began
            await victim.start()
            await self._site.until_in_rotation(lambda names: victim.name in names)
            back = time.perf_counter() - began
        self._remember(seen)
        of_victim = {entry["request_id"] for entry in self._site.log[logged:] if entry["gateway"] == victim.name}
        elsewhere = sorted(seen.failed.keys() - of_victim)
        text = (
            f"killed gateway: out of rotation after {noticed:.2f} s, back after {back:.1f} s; {seen.summary}, "
            f"of them {len(elsewhere)} not in flight there {elsewhere[:5]}"
        )
        return Figure(text, not elsewhere and len(seen.failed) <= self._plan.clients)

    async def rolling_restart(self) -> Figure:
        """Every gateway in turn: SIGTERM, its exit, a new process, back in rotation."""
        key, codes = await self.key("patient"), []
        began = time.perf_counter()
        async with traffic(self._site, key, "rolling", self._plan) as seen:
            for member in self._site.members:
                codes.append(await member.stop())
                await member.start()
                await self._site.until_in_rotation(lambda names, name=member.name: name in names)  # type: ignore[misc]
        self._remember(seen)
        text = f"rolling restart: {time.perf_counter() - began:.1f} s, exit codes {codes}, {seen.summary}"
        return Figure(text, not seen.failed and set(codes) == {0})

    def _remember(self, seen: Traffic) -> None:
        self.seen.answered |= seen.answered
        self.seen.failed |= seen.failed

    async def books(self) -> Figure:
        """One row for each request that was answered, none twice, no call made twice; what failed was interrupted."""
        await self._site.until_all_is_booked()
        statuses = await self._rows()
        once = {name for name in self.seen.answered if statuses.get(name) == ["success"]}
        twice = [name for name in self.seen.failed if len(statuses.get(name, [])) > 1]
        called_twice = [name for name, count in self._site.upstream.asked.items() if count > 1]
        lost = [name for name in self.seen.failed if name in self._site.upstream.asked and name not in statuses]
        ways = Counter(status for name in self.seen.failed for status in statuses.get(name, ("never called for",)))
        text = (
            f"books: {len(self.seen.answered)} answered, {len(once)} with exactly one row; {len(self.seen.failed)} "
            f"failed, booked as {dict(ways)}, {len(twice)} twice, {len(lost)} not at all although called for; "
            f"{len(called_twice)} calls made twice"
        )
        return Figure(text, len(once) == len(self.seen.answered) and not (twice or lost or called_twice))

    async def _rows(self, prefix: str = "") -> dict[str, list[str]]:
        """The statuses of the rows of each request."""
        connection = await asyncpg.connect(self._site.database_url)
        try:
            rows = await connection.fetch(
                "SELECT request_id, status FROM request_logs WHERE starts_with(request_id, $1)", prefix
            )
        finally:
            await connection.close()
        statuses: dict[str, list[str]] = {}
        for request, status in rows:
            statuses.setdefault(request, []).append(status)
        return statuses

    async def figures(self) -> AsyncIterator[Figure]:
        for step in (
            self.spread,
            self.rate_limit,
            self.hard_budget,
            self.revocation,
            self.idempotency,
            self.hanging_up,
            self.outage,
            self.configuration,
            self.failover,
            self.rolling_restart,
            self.books,
        ):
            yield await step()


async def run(directory: Path, database_url: str, plan: Plan) -> AsyncIterator[Figure]:
    """All figures, over a PostgreSQL database that is empty."""
    async with farm(directory, database_url) as site:
        async for figure in ScaleOut(site, plan).figures():
            yield figure


async def _print(plan: Plan) -> bool:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        good = True
        async for figure in run(directory, database_of("postgres", directory, stack), plan):
            print(f"{'ok    ' if figure.is_reached else 'MISSED'} {figure.text}", flush=True)
            good &= figure.is_reached
        return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load before and after each event")
    parser.add_argument("--crowd", type=int, default=300, help="requests at once")
    given = parser.parse_args()
    sys.exit(not asyncio.run(_print(Plan(clients=given.clients, seconds=given.seconds, crowd=given.crowd))))


if __name__ == "__main__":
    main()
