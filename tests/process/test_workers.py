"""Several workers on one port: replaced when they die, restarted and taken over from without losing a request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.keepalive import loading
from tests.process.conftest import Serving, serving

WORKERS = 2
SERVE = (sys.executable, "-m", "proxy", "serve")
QUIET = {"OVERLOAD_LAG_SECONDS": "0", "LLMGATEWAY_LOG_LEVEL": "WARNING"}


def workers_of(gateway: Serving) -> list[int]:
    return [child.pid for child in psutil.Process(gateway.process.pid).children()]


async def until_workers(gateway: Serving, gone: set[int]) -> None:
    """There are as many as there should be, and none of those that should be gone."""
    async with asyncio.timeout(30):
        while len(now := workers_of(gateway)) != WORKERS or gone & set(now):
            await asyncio.sleep(0.05)


def booked(gateway: Serving) -> list[str]:
    done = gateway.command("logs", "--json", "--limit", "100000")
    assert done.returncode == 0, done.stderr
    return [row["request_id"] for row in json.loads(done.stdout)["rows"]]


async def test_workers_come_and_go_and_no_request_is_lost(tmp_path: Path) -> None:
    with serving(tmp_path, *SERVE, "--workers", str(WORKERS), **QUIET) as gateway:
        async with loading(gateway.url) as load:
            await load.goes_on(50)
            before = set(workers_of(gateway))
            gateway.process.send_signal(signal.SIGHUP)  # one after the other is replaced
            await until_workers(gateway, gone=before)
            await load.goes_on(50)
            assert load.failures == []
        killed = workers_of(gateway)[0]
        async with loading(gateway.url) as through_a_kill:
            await through_a_kill.goes_on(30)
            os.kill(killed, signal.SIGKILL)
            await until_workers(gateway, gone={killed})
            await through_a_kill.goes_on(50)
        async with loading(gateway.url) as to_the_end:
            await to_the_end.goes_on(30)
            assert to_the_end.failures == []
        await stopped_with_a_request_running(gateway)
        rows = booked(gateway)
    answered = [*load.answered, *through_a_kill.answered, *to_the_end.answered]
    assert len(rows) == len(set(rows))
    assert set(answered) <= set(rows)


async def stopped_with_a_request_running(gateway: Serving) -> None:
    """It is answered, and who comes meanwhile is refused, not left waiting for it."""
    port = int(gateway.url.rpartition(":")[2])
    body = json.dumps({"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head % len(body) + body[:20])
    await asyncio.sleep(0.3)
    gateway.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        while is_listening(port):
            await asyncio.sleep(0.05)
    writer.write(body[20:])
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0


def is_listening(port: int) -> bool:
    """By the kernel's table: a connection to try it would be in the way."""
    found = psutil.net_connections("tcp4")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_a_second_gateway_takes_over_without_a_lost_request(tmp_path: Path, workers: int) -> None:
    command = (*SERVE, "--workers", str(workers))
    with serving(tmp_path, *command, **QUIET) as old:
        port = old.url.rpartition(":")[2]
        async with loading(old.url) as load:
            await load.goes_on(30)
            environment = {**old.environment, "LLMGATEWAY_PORT": port}
            if workers > 1:  # a single process asks for the door only when it serves
                await asyncio.to_thread(_failing_to_take_over, command, tmp_path, environment)
                before = set(workers_of(old))
                old.process.send_signal(signal.SIGHUP)  # workers that end leave the door where it is
                await until_workers(old, gone=before)
            new = await asyncio.to_thread(_taking_over, command, tmp_path, environment)
            try:
                assert await asyncio.to_thread(old.process.wait, 30) == 0
                await load.goes_on(50)
            finally:
                load.stops = True
                await asyncio.sleep(0.1)
                new.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(new.wait, 30) == 0
        assert load.failures == []
        rows = booked(old)
    assert len(rows) == len(set(rows))
    assert set(load.answered) <= set(rows)


def _taking_over(command: tuple[str, ...], directory: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*command, "--take-over"], env=environment, cwd=directory, stderr=subprocess.DEVNULL)


def _failing_to_take_over(command: tuple[str, ...], directory: Path, environment: dict[str, str]) -> None:
    """The old one goes on, and can be taken over from once the mistake is mended."""
    wrong = {**environment, "LLMGATEWAY_CONFIG": str(directory / "there-is-none.yaml")}
    done = subprocess.run(
        [*command, "--take-over"], env=wrong, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode not in (0, None)
    assert "there-is-none.yaml" in done.stderr


def test_there_must_be_somebody_to_take_over_from(tmp_path: Path) -> None:
    done = subprocess.run(
        [*SERVE, "--take-over"],
        env={**os.environ, "LLMGATEWAY_DATA_DIR": str(tmp_path), "LLMGATEWAY_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "No running gateway to take over from" in done.stderr


def test_what_keeps_every_worker_from_serving_ends_it_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "llmgateway.db").write_text("this is no database " * 100)
    done = subprocess.run(
        [*SERVE, "--workers", str(WORKERS)],
        env={**os.environ, "LLMGATEWAY_DATA_DIR": str(tmp_path / "data"), "LLMGATEWAY_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    began, *told = done.stderr.splitlines()
    assert began.startswith("Starting")
    assert told == ["Error: The database is not available (DatabaseError): file is not a database"]
