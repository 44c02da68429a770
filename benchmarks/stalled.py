"""Clients that stall, and bodies that are too large, against a gateway with its usual settings.

    python -m benchmarks.stalled [--seconds 5]

Nine forms of sending nothing, too little or too slowly, and 500 half heads beside good requests; then a bomb, a
declared and a chunked body beyond all bounds. Takes a little over a minute; `--seconds` has the gateway wait for heads
and bodies for less than it usually does.

Claim: docs/operations.md: clients that stall are ended in time, without a front proxy, and good ones notice nothing.
Short: --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from aiohttp.test_utils import TestServer
from yarl import URL

from benchmarks.gateways import Gateway, Seen, gateway, upstream_app
from proxy.settings import Settings
from tests.gateway.raw_http import RawConnection, connected, request_bytes

_LATE_SECONDS = 5.0  # that a limit may be missed by
_MIB = 1024 * 1024
_WHOLE = request_bytes(method="GET", path="/health/live")
_POST = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 5000")
_CHUNKED = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
_BODY = b'{"model": "z-ai/glm-4.6", "user": "stalled-1", "messages": [{"role": "user", "content": "hello"}]}'

# What is sent at first, and what then comes once a second.
FORMS = {
    "nothing": (b"", b""),
    "half a head": (_WHOLE[:20], b""),
    "a head byte by byte": (_WHOLE[:-2] + b"X-Slow: ", b"a"),
    "line ends": (b"", b"\r\n"),
    "half a head behind a request": (_WHOLE + _WHOLE[:20], b""),
    "a head without its body": (_POST, b""),
    "half a body": (_POST + b"{" * 1000, b""),
    "a body byte by byte": (_POST, b" "),
    "chunks of a byte": (_CHUNKED, b"1\r\n \r\n"),
}


async def run(seconds: float) -> None:
    """Prints a line for each figure."""
    limits = {"HEAD_TIMEOUT_SECONDS": str(seconds), "BODY_TIMEOUT_SECONDS": str(seconds)}
    with tempfile.TemporaryDirectory() as directory:
        async with TestServer(upstream_app(Seen())) as upstream:
            upstream_url, database_url = str(upstream.make_url("/api/v1/")), f"sqlite:///{directory}/gateway.db"
            async with gateway(Path(directory), upstream_url, database_url, **limits) as serving_gateway:
                async for line in figures(serving_gateway, seconds + _LATE_SECONDS):
                    print(line)


async def figures(serving_gateway: Gateway, within_seconds: float) -> AsyncIterator[str]:
    """What came of all that."""
    url = URL(serving_gateway.url)
    stalled = [asyncio.create_task(_dropped_after(url, *form)) for form in FORMS.values()]
    half_heads = [asyncio.create_task(_dropped_after(url, _WHOLE[:30], b"")) for _ in range(500)]
    slowest = await _slowest_good_request(url, stalled)
    for name, seconds in zip(FORMS, await asyncio.gather(*stalled), strict=True):
        verdict = "within" if seconds <= within_seconds else "NOT within"
        yield f"{name}: dropped after {seconds:.1f} s, {verdict} {within_seconds:g}"
    yield f"500 half heads: the last dropped after {max(await asyncio.gather(*half_heads)):.1f} s"
    yield f"good requests beside them: the slowest took {slowest * 1000:.0f} ms"
    for name, sending in (("512 MiB bomb", _bomb), ("10 GiB declared", _declared), ("256 MiB in chunks", _chunks)):
        before = _resident_bytes(serving_gateway)
        async with connected(url) as connection:
            status, seconds = await sending(connection)
        grown = (_resident_bytes(serving_gateway) - before) / _MIB
        yield f"{name}: {status} after {seconds:.2f} s, RSS {grown:+.0f} MiB"


async def _dropped_after(url: URL, first: bytes, then: bytes) -> float:
    async with connected(url) as connection:
        started = time.monotonic()
        await connection.send(first)
        sending = asyncio.create_task(_once_a_second(connection, then))
        async with asyncio.timeout(120):
            with suppress(ConnectionError):
                while await connection.reader.read(65_536):
                    pass
        sending.cancel()
        return time.monotonic() - started


async def _once_a_second(connection: RawConnection, data: bytes) -> None:
    with suppress(ConnectionError):
        for _ in count():
            await asyncio.sleep(1)
            await connection.send(data)


async def _slowest_good_request(url: URL, while_running: list[asyncio.Task[float]]) -> float:
    slowest = 0.0
    while not all(task.done() for task in while_running):
        async with connected(url) as connection:
            started = time.monotonic()
            await connection.send(request_bytes(_BODY))
            assert (await connection.answer()).status == 200
            slowest = max(slowest, time.monotonic() - started)
        await asyncio.sleep(0.1)
    return slowest


def _resident_bytes(serving_gateway: Gateway) -> int:
    return int(Path(f"/proc/{serving_gateway.process.pid}/statm").read_text().split()[1]) * 4096


async def _bomb(connection: RawConnection) -> tuple[int, float]:
    packer = zlib.compressobj()
    packed = b"".join([*(packer.compress(b" " * _MIB) for _ in range(512)), packer.flush()])
    return await _answered(connection, request_bytes(packed, b"Content-Encoding: deflate"), b"", 0)


async def _declared(connection: RawConnection) -> tuple[int, float]:
    head = request_bytes(None, b"Content-Type: application/json", b"Content-Length: 10737418240")
    return await _answered(connection, head, b"", 0)


async def _chunks(connection: RawConnection) -> tuple[int, float]:
    return await _answered(connection, _CHUNKED, b"100000\r\n" + b" " * _MIB + b"\r\n", 256)


async def _answered(connection: RawConnection, first: bytes, then: bytes, times: int) -> tuple[int, float]:
    async def send() -> None:
        with suppress(ConnectionError):
            for _ in range(times):
                await connection.send(then)

    started = time.monotonic()
    await connection.send(first)
    sending = asyncio.create_task(send())
    answer = await connection.answer()
    seconds = time.monotonic() - started
    async with asyncio.timeout(60):
        await sending
    return answer.status, seconds


def main() -> None:
    usual = Settings.model_fields["head_timeout_seconds"].default
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=usual, help="for a head, and for a body without progress")
    asyncio.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
