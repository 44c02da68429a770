"""Rolling restarts (SIGHUP) and take-overs under load: clients keep their connections, and none may notice.

python -m benchmarks.restarts --times 5 --clients 16 --database sqlite|postgres

Half of the clients ask for plain answers, half for streams. A gateway of several workers is rolled, gateways of one
process and of several are taken over from, each so many times. Prints the requests that were answered, that failed
(another status, or a stream without its end), that were refused or reset, the rows that were booked and those that are
missing of what was answered. All but the first and the rows must be 0.

Claim: docs/operations.md: workers are rolled, and gateways taken over from, without a lost request.
Short: --times 1 --clients 4 --requests 20
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.access_cost import database_of
from benchmarks.gateways import Gateway, gateway
from benchmarks.keepalive import Load, loading
from benchmarks.load import Figure, until
from benchmarks.processes import children
from benchmarks.upstreams import BadUpstream, serving
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import session

_PATIENCE_SECONDS = 120.0
_LAST_ANSWERS_SECONDS = 0.3


@dataclass(frozen=True)
class Plan:
    """How often, under how many clients, with at least so many answers before and after each time."""

    times: int
    clients: int
    requests: int


@dataclass(frozen=True)
class Place:
    """Where the gateways of one run live, one after the other."""

    directory: Path
    upstream: str
    database_url: str

    @asynccontextmanager
    async def gateway(self, workers: int, port: int = 0, *, take_over: bool = False) -> AsyncIterator[Gateway]:
        """One that serves; ended in good order at the end, if it still runs."""
        more = {"LLMGATEWAY_WORKERS": str(workers), "LLMGATEWAY_PORT": str(port)}
        arguments = ("--take-over",) if take_over else ()
        async with gateway(self.directory, self.upstream, self.database_url, arguments, **more) as started:
            try:
                yield started
            finally:
                if started.process.returncode is None:
                    started.process.send_signal(signal.SIGTERM)
                await ended(started)


async def ended(one: Gateway) -> None:
    """Waits for it. Raises RuntimeError if it did not end well."""
    if await asyncio.wait_for(one.process.wait(), _PATIENCE_SECONDS):
        raise RuntimeError(f"a gateway ended with {one.process.returncode}: {''.join(one.log)}")


async def roll(place: Place, plan: Plan, workers: int) -> Load:
    """One gateway, whose workers are replaced."""
    async with place.gateway(workers) as one, loading(one.url, plan.clients, streams=True) as load:
        for _ in range(plan.times):
            await load.goes_on(plan.requests, _PATIENCE_SECONDS)
            before = set(children(one.process.pid))
            one.process.send_signal(signal.SIGHUP)
            await until(lambda before=before: _are_replaced(one, before, workers), _PATIENCE_SECONDS)  # type: ignore[misc]
        await load.goes_on(plan.requests, _PATIENCE_SECONDS)
    return load


def _are_replaced(one: Gateway, before: set[int], workers: int) -> bool:
    now = set(children(one.process.pid))
    return len(now) == workers and not now & before


async def take_over(place: Place, plan: Plan, workers: int) -> Load:
    """One gateway after the other, on the same port."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(place.gateway(workers))
        port = int(one.url.rpartition(":")[2])
        load = await stack.enter_async_context(loading(one.url, plan.clients, streams=True))
        async with AsyncExitStack() as later:
            for _ in range(plan.times):
                await load.goes_on(plan.requests, _PATIENCE_SECONDS)
                following = await later.enter_async_context(place.gateway(workers, port, take_over=True))
                await ended(one)
                one = following
            await load.goes_on(plan.requests, _PATIENCE_SECONDS)
            load.stops = True
            await asyncio.sleep(_LAST_ANSWERS_SECONDS)
    return load


async def booked(database_url: str) -> Counter[str]:
    """How many rows each request has."""
    async with open_database(database_url) as database, session(database) as to:
        return Counter(str(row[0]) for row in await to.fetch("SELECT request_id FROM request_logs"))


def judged(what: str, load: Load, rows: Counter[str]) -> Figure:
    """What the clients saw, beside the books."""
    ways = Counter(each.partition(":")[0] for each in load.failures)
    refused, reset = ways.pop("refused", 0), ways.pop("reset", 0)
    missing = [name for name in load.answered if not rows[name]]
    twice = [name for name, count in rows.items() if count > 1]
    text = (
        f"{what}: {len(load.answered)} answered ({load.streams} streams), {ways.total()} failed {dict(ways) or ''}, "
        f"{refused} refused, {reset} reset; {rows.total()} rows, {len(missing)} missing, {len(twice)} twice"
    )
    return Figure(text, bool(load.streams) and not (load.failures or missing or twice))


async def run(kind: str, plan: Plan) -> AsyncIterator[Figure]:
    """A figure for each way to restart."""
    ways: tuple[tuple[str, Callable[[Place, Plan, int], Awaitable[Load]], int], ...] = (
        ("2 workers, rolled (SIGHUP)", roll, 2),
        ("1 process, taken over from", take_over, 1),
        ("2 workers, taken over from", take_over, 2),
    )
    upstream = BadUpstream("up")
    async with serving(upstream):
        for what, restart, workers in ways:
            with ExitStack() as stack:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = database_of(kind, directory, stack)
                async with open_database(url) as database:
                    await migrate(database)
                load = await restart(Place(directory, upstream.url, url), plan, workers)
                yield judged(f"{what} {plan.times} time(s)", load, await booked(url))


async def _print(kind: str, plan: Plan) -> bool:
    is_good = True
    async for figure in run(kind, plan):
        print(figure.text, flush=True)
        is_good &= figure.is_reached
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=300, help="answers before, between and after restarts")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    given = parser.parse_args()
    plan = Plan(given.times, given.clients, given.requests)
    raise SystemExit(0 if asyncio.run(_print(given.database, plan)) else 1)


if __name__ == "__main__":
    main()
