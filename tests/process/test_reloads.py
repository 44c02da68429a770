"""While workers are replaced, the supervisor hears signals and looks after all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from tests.harness import HELLO, Upstream, held
from tests.process.conftest import Serving, serving
from tests.process.test_workers import QUIET, SERVE, WORKERS, is_listening, until_workers, workers_of
from tests.telemetry.scraping import Scrape

COMMAND = (*SERVE, "--workers", str(WORKERS))
CONFIG = """
providers:
  local: {kind: openai, base_url: "http://127.0.0.1:9/v1/"}
models:
  test/model:
    deployments: [{provider: local}]
"""


async def until(is_so: Callable[[], bool]) -> None:
    """Well before the supervisor's time limit for old workers. Raises TimeoutError."""
    async with asyncio.timeout(25):
        while not is_so():
            await asyncio.sleep(0.05)


def health(gateway: Serving) -> dict[str, Any]:
    report: dict[str, Any] = httpx.get(f"{gateway.url}/health").json()
    return report


def is_ready(gateway: Serving) -> bool:
    """As metrics say of all workers."""
    return Scrape(httpx.get(f"{gateway.url}/metrics").text).value("llmgateway_ready") == 1


@asynccontextmanager
async def held_stream(gateway: Serving, upstream: Upstream) -> AsyncIterator[Callable[[], asyncio.Task[bytes]]]:
    """A stream that has begun; what it gives lets it end, and reads it."""
    may_end = asyncio.Event()

    def finish() -> asyncio.Task[bytes]:
        may_end.set()
        return asyncio.create_task(response.content.read())

    upstream.answer(held(may_end))
    body = {**HELLO, "stream": True}
    url = f"{gateway.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        assert b"Hel" in await response.content.readany()
        yield finish


async def test_a_failed_reload_keeps_the_old_workers_and_ends_when_told_to(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG)
    with serving(tmp_path, *COMMAND, **QUIET) as gateway:
        before = set(workers_of(gateway))
        config.write_text("providers: nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: any("a worker could not serve" in line for line in gateway.output))
        await until(lambda: set(workers_of(gateway)) == before)
        assert await asyncio.to_thread(gateway.stop) == 0


async def test_while_old_workers_finish_new_ones_are_looked_after(upstream: Upstream, tmp_path: Path) -> None:
    settings = {"OPENROUTER_BASE_URL": upstream.url, "OPENROUTER_API_KEY": "sk-or-x", **QUIET}
    with serving(tmp_path, *COMMAND, **settings) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        before = set(workers_of(gateway))

        def new() -> set[int]:
            return set(workers_of(gateway)) - before

        async with held_stream(gateway, upstream) as finish:
            gateway.process.send_signal(signal.SIGHUP)
            await until(lambda: len(workers_of(gateway)) == WORKERS + 1 and len(new()) == WORKERS)
            await until(lambda: "this worker is ending" in str(health(gateway)["workers"]))
            report = health(gateway)
            assert (report["status"], report["problems"], report["load"]["in_flight"]) == ("ok", [], 1)
            await until(lambda: is_ready(gateway))
            killed = new().pop()
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(new() - {killed}) == WORKERS)
            gateway.process.send_signal(signal.SIGTERM)
            await until(lambda: not is_listening(port))
            assert before & set(workers_of(gateway))  # with its stream, all the while
            assert (await finish()).endswith(b"data: [DONE]\n\n")
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def test_a_second_reload_replaces_what_the_first_one_has_started(tmp_path: Path) -> None:
    """Also those that have no handlers for signals as yet."""
    with serving(tmp_path, *COMMAND, **QUIET) as gateway:
        before = set(workers_of(gateway))
        gateway.process.send_signal(signal.SIGHUP)
        await until(lambda: len(workers_of(gateway)) > WORKERS)
        first = set(workers_of(gateway)) - before
        gateway.process.send_signal(signal.SIGHUP)
        await until_workers(gateway, gone=before | first)
        gateway.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.02)
        gateway.process.send_signal(signal.SIGTERM)
        try:
            assert await asyncio.to_thread(gateway.process.wait, 20) == 0
        except subprocess.TimeoutExpired:
            raise AssertionError(gateway.output) from None
