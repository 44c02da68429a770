"""Clients of a gateway with a configuration file: what they send, how fast, and what became of it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from benchmarks.gateways import Gateway, gateway
from benchmarks.upstreams import BadUpstream

_NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended; `status` is 0 without an answer. `is_whole`: answered to the end, without an error."""

    status: int
    is_whole: bool
    seconds: float
    first_byte_seconds: float


class Figure(NamedTuple):
    """What was measured, in words, and whether the target was reached."""

    text: str
    is_reached: bool


Send = Callable[[int], Awaitable[Reply]]


def asking(session: aiohttp.ClientSession, url: str, model: str, *, streams: bool | None = None) -> Send:
    """Sends request number n: a stream if n is even, unless `streams` says what all are."""

    async def send(number: int) -> Reply:
        stream = number % 2 == 0 if streams is None else streams
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
        began, first, status, raw = time.perf_counter(), None, _NO_ANSWER, b""
        with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                async for data in response.content.iter_any():
                    first = first or time.perf_counter()
                    raw += data
                status = response.status
        ended = time.perf_counter()
        is_whole = status == 200 and (raw.endswith(b"data: [DONE]\n\n") if stream else b'"usage"' in raw)
        return Reply(status, is_whole, ended - began, (first or ended) - began)

    return send


async def in_parallel(send: Send, count: int, clients: int) -> list[Reply]:
    """So many requests, each client sending its next one when it has its answer."""
    numbers, replies = iter(range(count)), list[Reply]()

    async def client() -> None:
        for number in numbers:
            replies.append(await send(number))

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


async def at_rate(send: Send, per_second: float, seconds: float) -> list[Reply]:
    """Requests at fixed intervals, whether or not earlier ones were answered."""
    began, tasks = time.perf_counter(), list[asyncio.Task[Reply]]()
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        tasks.append(asyncio.ensure_future(send(number)))
    return list(await asyncio.gather(*tasks))


async def until(is_so: Callable[[], bool], seconds: float = 30.0) -> None:
    """Waits for it. Raises TimeoutError when it does not come about in time."""
    async with asyncio.timeout(seconds):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.02)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by that share of them."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def outcomes(replies: Sequence[Reply]) -> str:
    """How many ended in which way."""
    ways = Counter("answered" if one.is_whole else f"status {one.status}" for one in replies)
    return ", ".join(f"{count} {way}" for way, count in ways.most_common())


def urls(*upstreams: BadUpstream) -> dict[str, str]:
    """By their names."""
    return {upstream.name: upstream.url for upstream in upstreams}


def write_config(
    path: Path, where: Mapping[str, str], *, providers: Mapping[str, Any] | None = None, **sections: Any
) -> None:
    """A configuration file with a provider for each name and URL; `providers` says more of them. JSON is YAML, too."""
    more = providers or {}
    described = {
        name: {"base_url": url, "usage_in_streams": "always", **more.get(name, {})} for name, url in where.items()
    }
    path.write_text(json.dumps({"providers": described, **sections}, indent=1))


def model_of(*providers: str, weights: Sequence[float] = (), **more: Any) -> dict[str, Any]:
    """A model that each of them serves, in this order with the strategy `priority`."""
    shares = weights or [1] * len(providers)
    deployments = [
        {"provider": name, "model": "any", "weight": weight, "order": order}
        for order, (name, weight) in enumerate(zip(providers, shares, strict=True))
    ]
    return {"deployments": deployments, **more}


ADMIN_KEY = "sk-administrator"


@asynccontextmanager
async def gateway_with_file(
    directory: Path, path: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Gateway, aiohttp.ClientSession]]:
    """A gateway process that follows the file, and a session for its clients."""
    more = {"LLMGATEWAY_CONFIG": str(path), "RETRY_MAX_RETRIES": "3", "PRICES_SYNC_SECONDS": "0"}
    more |= {"LLMGATEWAY_MASTER_KEY": ADMIN_KEY, "LLMGATEWAY_REQUIRE_KEYS": "never"}  # open, but for reloads
    more |= {"RECONCILE_SECONDS": "0", **(settings or {})}
    async with (
        gateway(directory, "http://127.0.0.1:9/", database_url(directory), **more) as serving,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield serving, session


def database_url(directory: Path) -> str:
    return f"sqlite:///{directory / 'gateway.db'}"


async def health(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """The gateway's report of itself."""
    async with session.get(f"{url}/health") as response:
        report: dict[str, Any] = await response.json()
        return report
