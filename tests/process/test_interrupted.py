"""A gateway that ends in the middle of an answer: it is booked as interrupted, and its bill can be asked for."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp

from tests.harness import HELLO, Upstream, chunk, stall, streams
from tests.process.conftest import Serving, serving


async def test_what_kill_9_interrupts_is_booked_with_the_id_that_its_bill_is_asked_for_by(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.answer(streams(chunk("Hel"), then=stall, generation_header="gen-77"))
    settings = {"OPENROUTER_BASE_URL": upstream.url, "OPENROUTER_API_KEY": "sk-or-x", "RECONCILE_SECONDS": "0"}
    with serving(tmp_path, **settings) as gateway:
        async with aiohttp.ClientSession() as session:
            body = {**HELLO, "stream": True}
            async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                assert b"Hel" in await response.content.readany()
                gateway.process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(gateway.process.wait)
    with serving(tmp_path, **settings) as gateway:
        async with asyncio.timeout(20):
            while not (rows := await asyncio.to_thread(_rows, gateway)):
                await asyncio.sleep(0.2)
    (row,) = rows
    assert (row["status"], row["generation_id"]) == ("interrupted", "gen-77")
    assert (row["reported_cost_usd"], row["cost_source"]) == (None, "unknown")


async def test_what_a_signal_leaves_no_more_time_for_is_interrupted_too(upstream: Upstream, tmp_path: Path) -> None:
    upstream.answer(streams(chunk("Hel", id="gen-78"), then=stall, generation_header="gen-78"))
    settings = {"OPENROUTER_BASE_URL": upstream.url, "OPENROUTER_API_KEY": "sk-or-x", "RECONCILE_SECONDS": "0"}
    with serving(tmp_path, SHUTDOWN_GRACE_SECONDS="0.5", **settings) as gateway:
        async with aiohttp.ClientSession() as session:
            body = {**HELLO, "stream": True}
            async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
                assert b"Hel" in await response.content.readany()
                assert await asyncio.to_thread(gateway.stop) == 0
        (row,) = await asyncio.to_thread(_rows, gateway)
    assert (row["status"], row["generation_id"]) == ("interrupted", "gen-78")


def _rows(gateway: Serving) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(gateway.command("logs", "--json").stdout)["rows"]
    return rows
