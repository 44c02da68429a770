"""Clients that ask for streams and read nothing, while others ask for the gateway's health.

python -m benchmarks.slow_readers --readers 200 --stall-seconds 10

Prints the gateway's memory for each reader, how much it took from the upstream, how long /health took meanwhile, and
whether all readers were cut off after the stall, their upstream calls ended and their rows booked.

Claim: docs/operations.md: readers that read nothing take 0.4 MiB each until they are cut off.
Short: --readers 50 --stall-seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.gateways import Gateway, gateway
from benchmarks.load import database_url, percentile, until
from benchmarks.many_streams import raise_limit
from benchmarks.processes import resident_kib
from benchmarks.swift import request_bytes
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.sessions import session

_GOAL_KIB = 512
_CHUNK = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "word " * 800}}]}).encode() + b"\n\n"


class Flood:
    """An upstream that streams for ever, as fast as it is read. `open` are its calls under way."""

    def __init__(self) -> None:
        self.open = self.sent_bytes = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self.open += 1
        try:
            with suppress(ConnectionError):
                await response.prepare(request)
                while True:
                    await response.write(_CHUNK)
                    self.sent_bytes += len(_CHUNK)
                    await asyncio.sleep(0)
        finally:
            self.open -= 1
        return response

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        return app


def _reader(address: tuple[str, int], request: bytes) -> socket.socket:
    reader = socket.create_connection(address)
    reader.sendall(request)
    return reader


async def _health_seconds(url: str, count: int) -> list[float]:
    seconds = []
    async with aiohttp.ClientSession() as http:
        for _ in range(count):
            began = time.perf_counter()
            async with http.get(f"{url}/health") as response:
                await response.read()
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)
    return seconds


async def _statuses(url: str) -> Counter[str]:
    async with open_database(url) as database, session(database) as to:
        return Counter(str(status) for (status,) in await to.fetch("SELECT status FROM request_logs"))


async def measure(serving: Gateway, flood: Flood, readers: int, database: str) -> None:
    host, _, port = serving.url.removeprefix("http://").partition(":")
    body = {"model": "z-ai/glm-4.6", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    request = request_bytes("gateway", json.dumps(body).encode(), {})
    await _health_seconds(serving.url, 20)
    idle_kib, began = resident_kib(serving.process.pid), time.perf_counter()
    connections = [_reader((host, int(port)), request) for _ in range(readers)]
    await until(lambda: flood.open == readers)
    health = await _health_seconds(serving.url, 200)
    each_kib = (resident_kib(serving.process.pid) - idle_kib) / readers
    taken_kib = flood.sent_bytes / 1024 / readers
    await until(lambda: flood.open == 0, 120)
    over = time.perf_counter() - began
    await asyncio.sleep(2)
    for connection in connections:
        connection.close()
    print(
        f"{readers} that read nothing: {each_kib:.0f} KiB each (goal {_GOAL_KIB}), {taken_kib:.0f} KiB for each taken "
        f"from the upstream; /health {percentile(health, 0.99) * 1000:.0f} ms (p99; goal 1000); all cut off and their "
        f"upstream calls ended after {over:.1f} s; booked as {dict(await _statuses(database))}"
    )


async def run(readers: int, stall_seconds: float) -> None:
    flood = Flood()
    server = TestServer(flood.app())
    await server.start_server(access_log=None)
    more = {"WRITE_STALL_TIMEOUT_SECONDS": str(stall_seconds), "LLMGATEWAY_TRACES": "off"}
    try:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            url = database_url(directory)
            async with gateway(directory, str(server.make_url("/v1")), url, **more) as serving:
                await measure(serving, flood, readers, url)
    finally:
        await server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--stall-seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    raise_limit()
    uvloop.run(run(chosen.readers, chosen.stall_seconds))


if __name__ == "__main__":
    main()
