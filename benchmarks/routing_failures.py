"""Figures of what happens to requests while upstreams fail: faults, outages, and one that hangs beside others."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.load import (
    Figure,
    Reply,
    Send,
    asking,
    at_rate,
    gateway_with_file,
    in_parallel,
    model_of,
    outcomes,
    percentile,
    until,
    urls,
    write_config,
)
from benchmarks.upstreams import FAILURES, BadUpstream, Fault, serving, share_of_calls

_LEAST_SUCCESS = 0.995
_MOST_AMPLIFICATION = 1.2
_MOST_P99_RATIO = 1.5
_NEVER_OPENS = 1_000_000_000


async def faults(directory: Path, requests: int, clients: int, share: float = 0.1) -> Figure:
    """Three upstreams of which each fails that share of its calls before the first byte, and answers 5 % slowly."""
    upstreams = [BadUpstream(name, _failing(share, seed)) for seed, name in enumerate(("one", "two", "three"))]
    async with serving(*upstreams):
        path = directory / "gateway.yaml"
        patience = {one.name: {"timeouts": {"first_byte_seconds": 1}} for one in upstreams}
        write_config(path, urls(*upstreams), providers=patience, models={"m": model_of("one", "two", "three")})
        async with gateway_with_file(directory, path) as (gateway, session):
            replies = await in_parallel(asking(session, gateway.url, "m"), requests, clients)
    calls = sum(one.calls for one in upstreams)
    met = sum((one.faults for one in upstreams), start=Counter[Fault]())
    failed_calls = sum(met[fault] for fault in FAILURES)
    success = sum(reply.is_whole for reply in replies) / len(replies)
    times = [reply.seconds for reply in replies]
    return Figure(
        f"{len(replies)} requests, {calls} upstream calls, {failed_calls} ({failed_calls / calls:.1%}) of them failed "
        f"before the first byte ({', '.join(f'{count} {fault}' for fault, count in met.items())}): {outcomes(replies)}"
        f"; success {success:.2%} (target {_LEAST_SUCCESS:.1%}), p50 {percentile(times, 0.5) * 1000:.0f} ms, "
        f"p99 {percentile(times, 0.99) * 1000:.0f} ms",
        success >= _LEAST_SUCCESS,
    )


def _failing(share: float, seed: int) -> Callable[[], Fault | None]:
    fails, is_slow = share_of_calls(share, FAILURES, seed), share_of_calls(0.05, (Fault.SLOW,), seed + 100)
    return lambda: fails() or is_slow()


async def outage(directory: Path, per_second: float, seconds: float) -> list[Figure]:
    """All upstreams answer 503 or reset, then they fail half of the calls.

    Both also without breakers: what is left then is the retry budget, which always allows a few retries at a time.
    """
    down = itertools.cycle((Fault.SERVER_ERROR, Fault.RESET))
    half = share_of_calls(0.5, (Fault.SERVER_ERROR, Fault.RESET), seed=7)
    load = (per_second, seconds)
    return [
        await _amplification(directory / "1", "all calls fail", lambda: next(down), load, _MOST_AMPLIFICATION),
        await _amplification(directory / "2", "half of the calls fail", half, load),
        await _amplification(directory / "3", "all fail, no breaker", lambda: next(down), load, has_breaker=False),
        await _amplification(directory / "4", "half fail, no breaker", half, load, has_breaker=False),
    ]


async def _amplification(
    directory: Path,
    what: str,
    fault: Callable[[], Fault | None],
    load: tuple[float, float],
    target: float | None = None,
    *,
    has_breaker: bool = True,
) -> Figure:
    upstreams = [BadUpstream(name, fault) for name in ("one", "two", "three")]
    breaker = {} if has_breaker else {"circuit_breaker": {"failure_threshold": _NEVER_OPENS}}
    directory.mkdir()
    async with serving(*upstreams):
        path = directory / "gateway.yaml"
        write_config(path, urls(*upstreams), models={"m": model_of("one", "two", "three")}, routing=breaker)
        async with gateway_with_file(directory, path) as (gateway, session):
            replies = await at_rate(asking(session, gateway.url, "m"), *load)
    calls = sum(one.calls for one in upstreams)
    ratio = calls / len(replies)
    wanted = "no target" if target is None else f"target {target}"
    return Figure(
        f"{what}: {len(replies)} requests at {load[0]:g}/s, {calls} upstream calls: amplification {ratio:.2f} "
        f"({wanted}); {outcomes(replies)}, p99 {_p99(replies) * 1000:.0f} ms",
        target is None or ratio <= target,
    )


class _Pair(NamedTuple):
    """p99 in seconds, of the same traffic."""

    idle: float
    beside_hung: float
    failed: int


async def isolation(directory: Path, hung: int, per_second: float, seconds: float, pairs: int = 4) -> Figure:
    """Traffic to B, alone and while so many calls to A hang.

    The best of each counts: others use this machine, too, and disturb whichever happens to run.
    """
    a, b = BadUpstream("a", lambda: Fault.HANG), BadUpstream("b")
    async with serving(a, b):
        path = directory / "gateway.yaml"
        patience = {"a": {"timeouts": {"first_byte_seconds": 600}}}
        write_config(path, urls(a, b), providers=patience, models={"a": model_of("a"), "b": model_of("b")})
        async with gateway_with_file(directory, path) as (gateway, session):
            to_a, to_b = asking(session, gateway.url, "a"), asking(session, gateway.url, "b")
            await at_rate(to_b, per_second, 2)
            measured = [await _pair(a, to_a, to_b, hung, per_second, seconds) for _ in range(pairs)]
    idle, beside = [pair.idle for pair in measured], [pair.beside_hung for pair in measured]
    ratio = min(beside) / min(idle)
    failed = sum(pair.failed for pair in measured)
    each = ", ".join(f"{pair.idle * 1000:.1f} → {pair.beside_hung * 1000:.1f}" for pair in measured)
    return Figure(
        f"{hung} calls to A hang, B gets {per_second:g}/s: {failed} of B's failed (target 0); p99 in ms, idle → beside "
        f"them: {each}; best {min(idle) * 1000:.1f} → {min(beside) * 1000:.1f}, ratio {ratio:.2f} "
        f"(target {_MOST_P99_RATIO}); ratio of medians {median(beside) / median(idle):.2f}",
        failed == 0 and ratio <= _MOST_P99_RATIO,
    )


async def _pair(a: BadUpstream, to_a: Send, to_b: Send, hung: int, per_second: float, seconds: float) -> _Pair:
    idle = await at_rate(to_b, per_second, seconds)
    hanging = [asyncio.ensure_future(to_a(number)) for number in range(hung)]
    await until(lambda: a.waiting == hung)
    await asyncio.sleep(1)
    beside = await at_rate(to_b, per_second, seconds)
    assert a.waiting == hung, "calls to A ended before they should"
    for call in hanging:
        call.cancel()
    for call in hanging:
        with suppress(asyncio.CancelledError):
            await call
    await until(lambda: a.waiting == 0)
    await asyncio.sleep(1)
    return _Pair(_p99(idle), _p99(beside), sum(not reply.is_whole for reply in [*idle, *beside]))


def _p99(replies: list[Reply]) -> float:
    return percentile([reply.seconds for reply in replies], 0.99)
