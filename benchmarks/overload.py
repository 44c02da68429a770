"""One gateway process at five times what it can do: goodput, refusals, latency, memory, and how soon it is over.

python -m benchmarks.overload --times 5 --seconds 60 [--database postgres] [--lag-seconds 0.01]

Finds the peak with closed loops of several sizes, then offers that many times more: in an open loop (requests at fixed
times, whatever becomes of them, over more connections when all of them wait) and in a closed one (so many times as many
clients as at the peak, who ask again at once when they are refused). Every request has a key, a hard budget and a rate
limit, and is booked. The gateway has one core; the upstream and the clients share another one, and cost little.

The peak's answers are the most that any size of the closed loop got, and its latency is that of the smallest size with
nearly as many: with more clients answers take longer, and no more of them come.

Waiting may take a second before an overload is taken for one, and those who began then are among the slowest of a
minute: latency is also given without the first two seconds.

Other work on the gateway's core moves all figures: how much of it there was is printed, and goodput is also given for
each second of CPU, which it moves least.

Claim: docs/operations.md: the excess is refused soon, the rest is served in good time, and nothing is lost.
Short: --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.access_cost import database_of, key_with_budget_and_limit
from benchmarks.gateways import Gateway, gateway
from benchmarks.load import percentile
from benchmarks.many_streams import free_port, raise_limit
from benchmarks.processes import cpu_seconds, on_core, resident_kib, waited_seconds
from benchmarks.swift import Crowd, PlainUpstream, request_bytes
from proxy.settings import Settings

_OK, _REFUSED = 200, (429, 503)
_CLIENTS = (16, 32, 64, 128)
_MOST_CONNECTIONS = 8000
_FULL = 64  # clients that keep the core busy for sure
_NEARLY = 0.95
_WARM_SECONDS = 2.0
_SEARCH_SECONDS = 5.0
_BEGINNING_SECONDS = 2.0
_RECOVERED = 1.5  # times the latency before
_MASTER_KEY = "sk-master-of-the-benchmark"


@dataclass(frozen=True)
class Seen:
    """What came of a stretch of load. Latencies are in seconds.

    Of requests that came to nothing, those were `lost` whose connection broke or whose status is none of an overload,
    `unanswered` those whose answer did not come within a second after the end, and `unsent` those for which the clients
    had no connection left. `client_lag` is what the clients themselves were late by (p99). `cpu` is the share of a core
    that the gateway used, and `had` the share that it might have used, but for other work on the machine. `settled` are
    the latencies of answers after the beginning.
    """

    per_second: float
    refused_per_second: float
    lost: int
    unanswered: int
    unsent: int
    client_lag: float
    latencies: Sequence[float]
    refusals: Sequence[float]
    cpu: float
    had: float
    settled: Sequence[float]

    @property
    def p99(self) -> float:
        return percentile(self.latencies, 0.99) if self.latencies else float("inf")

    @property
    def failed(self) -> int:
        return self.lost + self.unanswered + self.unsent

    @property
    def per_cpu_second(self) -> float:
        """What it would be with a core for the gateway alone, which does nothing else."""
        return self.per_second / self.cpu


@dataclass(frozen=True)
class Bench:
    """The gateway and what is sent to it."""

    serving: Gateway
    request: bytes

    def crowd(self) -> Crowd:
        host, _, port = self.serving.url.removeprefix("http://").partition(":")
        return Crowd(host, int(port), self.request)

    async def see(self, load: Callable[[Crowd], Awaitable[None]], *, skip_seconds: float, seconds: float) -> Seen:
        """What came of the load in so many seconds after those that are skipped."""
        crowd, pid = self.crowd(), self.serving.process.pid
        running = asyncio.ensure_future(load(crowd))
        await crowd.begun.wait()
        await asyncio.sleep(skip_seconds)
        began, cpu, waited = time.perf_counter(), cpu_seconds(pid), waited_seconds(pid)
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        cpu, waited = (cpu_seconds(pid) - cpu) / took, (waited_seconds(pid) - waited) / took
        await running
        ended = [one for one in crowd.tally.ended if began <= one[0] < began + seconds]
        good = [latency for _, status, latency in ended if status == _OK]
        refused = [latency for _, status, latency in ended if status in _REFUSED]
        return Seen(
            per_second=len(good) / seconds,
            refused_per_second=len(refused) / seconds,
            lost=len(ended) - len(good) - len(refused),
            unanswered=crowd.tally.open,
            unsent=crowd.unsent,
            client_lag=percentile(crowd.lags, 0.99),
            latencies=good,
            refusals=refused,
            cpu=max(0.01, cpu),
            had=1 - waited,
            settled=[took for at, status, took in ended if status == _OK and at >= began + _BEGINNING_SECONDS],
        )

    async def closed(self, clients: int, seconds: float) -> Seen:
        return await self.see(
            lambda crowd: crowd.closed(clients, _WARM_SECONDS + seconds), skip_seconds=_WARM_SECONDS, seconds=seconds
        )

    async def open(self, per_second: float, seconds: float, connections: int) -> Seen:
        """All of it counts, its beginning, too."""
        return await self.see(
            lambda crowd: crowd.open(per_second, seconds, connections=connections, most_connections=_MOST_CONNECTIONS),
            skip_seconds=0.0,
            seconds=seconds,
        )


def _say(name: str, seen: Seen) -> None:
    refused = f", {seen.refused_per_second:.0f} refused/s" if seen.refusals else ""
    median = percentile(seen.latencies or [0.0], 0.5)
    print(
        f"{name}: {seen.per_second:.0f} answers/s{refused}, {median * 1000:.0f} ms (p50), "
        f"{seen.p99 * 1000:.0f} ms (p99); {seen.lost} lost, {seen.unanswered} unanswered, {seen.unsent} unsent; "
        f"CPU {seen.cpu * 100:.0f} of {seen.had * 100:.0f} %, clients late by {seen.client_lag * 1000:.0f} ms (p99)",
        flush=True,
    )


def _compare(
    name: str, seen: Seen, peak: Seen, peak_p99: float, rss_kib: tuple[float, float], recovery_seconds: float | None
) -> None:
    _say(name, seen)
    refusals = seen.refusals or [0.0]
    settled = percentile(seen.settled or [0.0], 0.99)
    over = "not within 10 s" if recovery_seconds is None else f"{recovery_seconds:.1f} s"
    print(
        f"  goodput {seen.per_second / peak.per_second * 100:.0f} % of the peak "
        f"({seen.per_cpu_second / peak.per_cpu_second * 100:.0f} % for each second of CPU; goal 80); "
        f"refusals {percentile(refusals, 0.5) * 1000:.0f} ms (p50), {percentile(refusals, 0.99) * 1000:.0f} ms "
        f"(p99; goal 100); admitted p99 {seen.p99 / peak_p99:.1f} times the peak's (goal 2), and "
        f"{settled * 1000:.0f} ms or {settled / peak_p99:.1f} times after the first {_BEGINNING_SECONDS:g} s; memory "
        f"{rss_kib[0] / 1024:.0f} to {rss_kib[1] / 1024:.0f} MiB; normal again after {over} (goal 5)",
        flush=True,
    )


async def _recovery(bench: Bench, normal_p99: float) -> float | None:
    """Seconds until a second of light load is answered as before, without a refusal; None if it takes over ten."""
    began = time.perf_counter()
    while (after := time.perf_counter() - began) < 10:
        seen = await bench.open(50, 1.0, 16)
        if not seen.refusals and not seen.failed and seen.p99 < max(_RECOVERED * normal_p99, 0.05):
            return after
    return None


async def measure(bench: Bench, times: float, seconds: float, connections: int) -> None:
    """The peak, then the overload in both ways."""
    pid = bench.serving.process.pid
    light = await bench.open(50, 3.0, 16)
    _say("light load", light)
    peaks = {}
    for clients in _CLIENTS:
        peaks[clients] = await bench.closed(clients, _SEARCH_SECONDS)
        _say(f"{clients} clients", peaks[clients])
    peak = max(peaks.values(), key=lambda seen: seen.per_cpu_second)
    enough = min(clients for clients in _CLIENTS if peaks[clients].per_cpu_second >= _NEARLY * peak.per_cpu_second)
    print(f"the peak's latency is that of {enough} clients, the fewest with {_NEARLY:.0%} of its answers", flush=True)
    for name, load in (
        ("open loop", partial(bench.open, times * peak.per_second, seconds, connections)),
        ("closed loop", partial(bench.closed, int(times * _FULL), seconds)),
    ):
        before_kib = resident_kib(pid)
        seen = await load()
        after_kib = resident_kib(pid)
        recovery = await _recovery(bench, light.p99)
        _compare(f"{times:g} times the peak, {name}", seen, peak, peaks[enough].p99, (before_kib, after_kib), recovery)


def _upstream(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(partial(PlainUpstream, 0.0), "127.0.0.1", port)
        await server.serve_forever()

    raise_limit()
    on_core(1)
    uvloop.run(serve())


async def run(kind: str, times: float, seconds: float, connections: int, lag_seconds: float) -> None:
    on_core(1)
    port = free_port()
    upstream = multiprocessing.get_context("spawn").Process(target=_upstream, args=(port,), daemon=True)
    upstream.start()
    try:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = database_of(kind, directory, stack)
            headers = {"Authorization": f"Bearer {await key_with_budget_and_limit(url)}"}
            more = {"LLMGATEWAY_MASTER_KEY": _MASTER_KEY, "LLMGATEWAY_TRACES": "off"}
            more["OVERLOAD_LAG_SECONDS"] = str(lag_seconds)
            async with gateway(directory, f"http://127.0.0.1:{port}/v1", url, **more) as serving:
                on_core(0, serving.process.pid)
                body = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
                bench = Bench(serving, request_bytes("gateway", json.dumps(body).encode(), headers))
                await measure(bench, times, seconds, connections)
    finally:
        upstream.kill()
        upstream.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=1000, help="of the open loop at its beginning")
    usual = Settings.model_fields["overload_lag_seconds"].default
    parser.add_argument("--lag-seconds", type=float, default=usual, help="OVERLOAD_LAG_SECONDS")
    chosen = parser.parse_args()
    raise_limit()
    uvloop.run(run(chosen.database, chosen.times, chosen.seconds, chosen.connections, chosen.lag_seconds))


if __name__ == "__main__":
    main()
