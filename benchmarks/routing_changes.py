"""Figures of choices that are made for each request, and of a configuration that changes under load."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.gateways import Gateway, until_all_is_booked
from benchmarks.load import (
    ADMIN_KEY,
    Figure,
    Reply,
    asking,
    database_url,
    gateway_with_file,
    health,
    in_parallel,
    model_of,
    outcomes,
    percentile,
    urls,
    write_config,
)
from benchmarks.upstreams import BadUpstream, Fault, serving, share_of_calls
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs

_SHARE, _MOST_OFF = 0.75, 0.03
_FOLLOWED_SECONDS = 2.0
_SICK = "sick/any"
_FASTER = 0.5


async def distribution(directory: Path, requests: int, clients: int) -> Figure:
    """Two deployments with weights 3 and 1."""
    three, one = BadUpstream("three", seconds=0.0), BadUpstream("one", seconds=0.0)
    async with serving(three, one):
        path = directory / "gateway.yaml"
        write_config(path, urls(three, one), models={"m": model_of("three", "one", weights=(3, 1))})
        async with gateway_with_file(directory, path) as (gateway, session):
            replies = await in_parallel(asking(session, gateway.url, "m"), requests, clients)
    share = three.calls / (three.calls + one.calls)
    failed = sum(not reply.is_whole for reply in replies)
    return Figure(
        f"{requests} requests with weights 3:1 went {three.calls}:{one.calls}; share {share:.2%} "
        f"(target {_SHARE:.0%} ± {_MOST_OFF:.0%}), {failed} failed",
        abs(share - _SHARE) <= _MOST_OFF and failed == 0,
    )


# Reloads.


@dataclass
class _Changing:
    """A file that changes: deployment `a` gets another weight, `b` is made anew, `sick` stays as it is."""

    path: Path
    providers: Mapping[str, str]
    changes: int = 0

    @property
    def mistake(self) -> str:
        """The unknown key of the last invalid file."""
        return f"strategy_{self.changes}"

    def write(self, *, valid: bool) -> None:
        self.changes += 1
        models: dict[str, Any] = {
            "m": model_of("a", "b", weights=(self.changes, 1)),
            "ill": model_of("sick"),
        }
        if not valid:
            models["m"][self.mistake] = "weighted"
        write_config(
            self.path,
            self.providers,
            models=models,
            providers={"b": {"timeouts": {"idle_seconds": 30 + self.changes}}},
            routing={"circuit_breaker": {"cooldown_seconds": 600}},
        )


@dataclass
class _Reloads:
    """How reloads went. `followed_seconds`: by the file alone; `wrong` tells of those that went wrong."""

    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    followed_seconds: list[float] = field(default_factory=list)


async def reload(directory: Path, reloads: int, clients: int) -> Figure:
    """Reloads by request, by signal and by the file alone, under load; every other file is invalid."""
    a, b, sick = BadUpstream("a"), BadUpstream("b"), BadUpstream("sick", lambda: Fault.SERVER_ERROR)
    async with serving(a, b, sick):
        file = _Changing(directory / "gateway.yaml", urls(a, b, sick))
        file.write(valid=True)
        async with gateway_with_file(directory, file.path) as (gateway, session):
            await _open_breaker(session, gateway.url)
            calls_before, found = sick.calls, _Reloads()
            load = asyncio.create_task(_load(session, gateway.url, clients))
            await asyncio.sleep(2)
            before = _descriptors(gateway)
            for number in range(reloads):
                await _reload(gateway, session, file, number, found)
            await asyncio.sleep(3)  # what was replaced is closed when its last call has ended
            after = _descriptors(gateway)
            load.cancel()
            replies = await load
            report = await health(session, gateway.url)
    state = report["deployments"][_SICK]
    kept = state["circuit_breaker"] == "open" and state["success_rate"] == 0 and sick.calls == calls_before
    failed = sum(not reply.is_whole for reply in replies)
    slowest = max(found.followed_seconds)
    return Figure(
        f"{reloads} reloads ({found.refused} of invalid files, each refused and shown in /health) while {len(replies)} "
        f"requests ran: {outcomes(replies)} (target: 0 failed); a file alone is followed within {slowest:.2f} s at the "
        f"most (target {_FOLLOWED_SECONDS:g} s, {len(found.followed_seconds)} times); the unchanged deployment's "
        f"breaker and statistics {'survived' if kept else 'were LOST'}; open descriptors {before} before, {after} after"
        + "".join(f"\n  {wrong}" for wrong in found.wrong),
        failed == 0 and kept and not found.wrong and slowest <= _FOLLOWED_SECONDS,
    )


async def _open_breaker(session: aiohttp.ClientSession, url: str) -> None:
    ask = asking(session, url, "ill", streams=False)
    while (await health(session, url))["deployments"][_SICK]["circuit_breaker"] != "open":
        await asyncio.gather(*(ask(number) for number in range(5)))


async def _load(session: aiohttp.ClientSession, url: str, clients: int) -> list[Reply]:
    """Until it is cancelled; then what is under way ends first."""
    ending, send, replies = asyncio.Event(), asking(session, url, "m"), list[Reply]()

    async def client(first: int) -> None:
        number = first
        while not ending.is_set():
            replies.append(await send(number))
            number += 1

    running = [asyncio.create_task(client(number)) for number in range(clients)]
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    ending.set()
    await asyncio.gather(*running)
    return replies


async def _reload(
    gateway: Gateway, session: aiohttp.ClientSession, file: _Changing, number: int, found: _Reloads
) -> None:
    before = (await health(session, gateway.url))["configuration"]
    valid = number % 2 == 0
    file.write(valid=valid)
    began, way = time.perf_counter(), ("request", "request", "signal", "signal", "file", "file")[number % 6]
    if way == "request":
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with session.post(f"{gateway.url}/admin/config/reload", headers=headers) as response:
            if response.status != (200 if valid else 422):
                found.wrong.append(f"reload {number} was answered with {response.status}")
    elif way == "signal":
        gateway.process.send_signal(signal.SIGHUP)
    if await _is_followed(session, gateway.url, before, file, valid=valid):
        found.refused += not valid
        if way == "file":
            found.followed_seconds.append(time.perf_counter() - began)
    else:
        found.wrong.append(f"reload {number} by {way} was not followed")


async def _is_followed(
    session: aiohttp.ClientSession, url: str, before: dict[str, Any], file: _Changing, *, valid: bool
) -> bool:
    """Whether /health comes to show the new version; or of an invalid file what is wrong, and the version as before."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5 * _FOLLOWED_SECONDS):
            while True:
                now = (await health(session, url))["configuration"]
                if valid and now["version"] != before["version"]:
                    return not now["problems"]
                if not valid and any(file.mistake in problem for problem in now["problems"]):
                    return bool(now["version"] == before["version"])
                await asyncio.sleep(0.02)
    return False


def _descriptors(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/fd").iterdir()))


# Hedging.


async def hedge(directory: Path, requests: int, clients: int) -> list[Figure]:
    """Streams to two deployments that are slow for 5 % of their calls; without hedging, and with it.

    `p95` is measured with 3 %: what happens to every twentieth call is no exception to the 95th percentile.
    """
    figures = list[Figure]()
    for share, setting in ((0.05, {"after_seconds": 0.05}), (0.03, "p95")):
        off = await _hedged(directory / f"off-{share}", None, share, requests, clients)
        on = await _hedged(directory / f"on-{share}", setting, share, requests, clients)
        reached = on.p99 <= off.p99 * _FASTER and on.is_booked
        figures.append(Figure(f"{share:.0%} slow, off: {off.text}", off.is_booked))
        figures.append(Figure(f"{share:.0%} slow, {setting}: {on.text}; target: p99 halved", reached))
    return figures


@dataclass
class _Hedged:
    p99: float
    is_booked: bool
    text: str


async def _hedged(directory: Path, setting: Any, share: float, requests: int, clients: int) -> _Hedged:
    slow = [share_of_calls(share, (Fault.SLOW,), seed) for seed in (1, 2)]
    upstreams = [BadUpstream(name, fault) for name, fault in zip(("one", "two"), slow, strict=True)]
    directory.mkdir()
    async with serving(*upstreams):
        path = directory / "gateway.yaml"
        told = {one.name: {"kind": "openrouter"} for one in upstreams}  # whose streams tell their generation's id first
        write_config(path, urls(*upstreams), providers=told, models={"m": model_of("one", "two", hedge=setting)})
        async with gateway_with_file(directory, path) as (gateway, session):
            replies = await in_parallel(asking(session, gateway.url, "m", streams=True), requests, clients)
            await until_all_is_booked(directory, [gateway.url])
    async with open_database(database_url(directory)) as database:
        rows = await PiccoloRequestLogs(database).get_recent(10_000_000)
    return _judged(replies, list(rows), upstreams)


def _judged(replies: list[Reply], rows: list[RequestLog], upstreams: list[BadUpstream]) -> _Hedged:
    """Each request has its row, and each call that lost another one; both with the generation's id if it was told.

    A call that was cancelled on its way may have a row and not have come to the upstream.
    """
    calls = sum(one.calls for one in upstreams)
    told = {identity for one in upstreams for identity in one.told}
    won = [row for row in rows if row.status is RequestStatus.SUCCESS]
    lost = [row for row in rows if row.status is RequestStatus.HEDGED]
    booked = [row.generation_id for row in rows if row.generation_id is not None]
    is_booked = (
        len(won) == len(replies)
        and len(won) + len(lost) == len(rows) >= calls
        and all(row.generation_id for row in won)
        and len(booked) == len(set(booked))
        and set(booked) <= told
    )
    times = [reply.first_byte_seconds for reply in replies]
    p50, p95, p99 = (percentile(times, share) * 1000 for share in (0.5, 0.95, 0.99))
    named = sum(row.generation_id is not None for row in lost)
    return _Hedged(
        p99,
        is_booked,
        f"{outcomes(replies)}, {calls} upstream calls (+{calls / len(replies) - 1:.1%}); first byte p50 {p50:.0f} ms, "
        f"p95 {p95:.0f} ms, p99 {p99:.0f} ms; {len(won)} rows `success`, {len(lost)} `hedged`, {named} of these with "
        f"their generation's id; the books are {'right' if is_booked else 'WRONG'}",
    )
