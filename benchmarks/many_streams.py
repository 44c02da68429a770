"""Thousands of streams at a chunk a second through one gateway process.

python -m benchmarks.many_streams --streams 5000 --seconds 30

Prints how many were dropped, the gateway's memory for each, how late chunks came, and its CPU for each chunk. The
gateway has one core, the upstream and the clients another one. They raise their limits of open files as far as they
may; each stream takes two of the gateway's.

Claim: docs/operations.md: open streams cost little while nothing comes: memory for each, and CPU for each chunk.
Short: --streams 500 --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.gateways import Gateway, gateway
from benchmarks.load import database_url, percentile, until
from benchmarks.processes import cpu_seconds, on_core, resident_kib
from benchmarks.swift import request_bytes
from benchmarks.swift_streams import StreamReader, StreamTally, serve_streams
from proxy.settings import Settings

_FILES = 65_536
_GOAL_KIB, _GOAL_SECONDS = 120, 0.25


@dataclass(frozen=True)
class Plan:
    """What is to be done. `opening_per_second` streams are opened, and stay so for `seconds` after that."""

    streams: int
    seconds: float
    opening_per_second: float

    @property
    def opening_seconds(self) -> float:
        return self.streams / self.opening_per_second


def raise_limit() -> None:
    """Of open files: the hard limit, too, where that is allowed."""
    for limit in (_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def _upstream(port: int, seconds: float) -> None:
    raise_limit()
    on_core(1)
    uvloop.run(serve_streams(port, seconds))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _streams(plan: Plan, serving: Gateway) -> StreamTally:
    host, _, port = serving.url.removeprefix("http://").partition(":")
    body = {"model": "z-ai/glm-4.6", "stream": True, "messages": [{"role": "user", "content": "hello " * 50}]}
    request = request_bytes(f"{host}:{port}", json.dumps(body).encode(), {})
    tally, loop, began = StreamTally(), asyncio.get_running_loop(), time.monotonic()
    opening = set[asyncio.Task[None]]()

    async def connect() -> None:
        await loop.create_connection(partial(StreamReader, request, tally, again), host, int(port))

    async def connect_later() -> None:
        await asyncio.sleep(1.0)
        await connect()

    def again() -> None:
        task = loop.create_task(connect_later())
        opening.add(task)
        task.add_done_callback(opening.discard)

    for number in range(plan.streams):
        await asyncio.sleep(max(0.0, began + number / plan.opening_per_second - time.monotonic()))
        await connect()
    return tally


async def measure(plan: Plan, serving: Gateway) -> None:
    """Opens the streams, lets them run, waits for their end."""
    pid = serving.process.pid
    idle_kib = resident_kib(pid)
    tally = await _streams(plan, serving)
    with suppress(TimeoutError):
        await until(lambda: tally.begun + tally.dropped >= plan.streams, 15)
    print(f"{tally.begun} streams open, {tally.refused} refusals on the way (asked again after a second)", flush=True)
    await asyncio.sleep(2)
    tally.delays.clear()
    chunks, cpu = tally.chunks, cpu_seconds(pid)
    await asyncio.sleep(plan.seconds)
    chunks, cpu = tally.chunks - chunks, cpu_seconds(pid) - cpu
    each_kib = (resident_kib(pid) - idle_kib) / tally.begun
    delays = [delay for _, delay in tally.delays]
    await until(lambda: tally.done + tally.dropped >= tally.begun, 2 * plan.opening_seconds + 60)
    late = percentile(delays, 0.99)
    print(
        f"{tally.begun} streams for {plan.seconds:g} s: {tally.dropped} dropped (goal 0), {tally.done} to the end; "
        f"{each_kib:.0f} KiB each (goal {_GOAL_KIB}); chunks {percentile(delays, 0.5) * 1000:.1f} ms late (p50), "
        f"{late * 1000:.0f} ms (p99, goal {_GOAL_SECONDS * 1000:.0f}), {max(delays) * 1000:.0f} ms at most; "
        f"{cpu / chunks * 1e6:.0f} us of CPU a chunk, {cpu / plan.seconds * 100:.0f} % of a core"
    )


async def run(plan: Plan) -> None:
    on_core(1)
    port = free_port()
    seconds = plan.opening_seconds + plan.seconds + 20
    upstream = multiprocessing.get_context("spawn").Process(target=_upstream, args=(port, seconds), daemon=True)
    upstream.start()
    lag_seconds = Settings.model_fields["overload_lag_seconds"].default
    more = {"MAX_IN_FLIGHT": str(plan.streams), "OVERLOAD_LAG_SECONDS": str(lag_seconds), "LLMGATEWAY_TRACES": "off"}
    try:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            async with gateway(directory, f"http://127.0.0.1:{port}/v1", database_url(directory), **more) as serving:
                on_core(0, serving.process.pid)
                await measure(plan, serving)
    finally:
        upstream.kill()
        upstream.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--opening-per-second", type=float, default=250.0)
    chosen = parser.parse_args()
    raise_limit()
    uvloop.run(run(Plan(chosen.streams, chosen.seconds, chosen.opening_per_second)))


if __name__ == "__main__":
    main()
