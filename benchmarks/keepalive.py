"""Clients that keep their connections, ask without a pause, and notice whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_MODEL = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Load:
    """What came of the requests so far: the ids of those that were answered whole, and what went wrong with others.

    A failure begins with `refused` (no connection), `reset` (no whole answer), `cut` (a stream that ended before its
    `[DONE]`), or is the status.
    """

    name: str = field(default_factory=lambda: secrets.token_hex(4))
    answered: list[str] = field(default_factory=list)
    streams: int = 0
    failures: list[str] = field(default_factory=list)
    stops: bool = False

    async def goes_on(self, more: int, seconds: float = 30.0) -> None:
        """Until so many more were answered. Raises TimeoutError."""
        wanted = len(self.answered) + more
        async with asyncio.timeout(seconds):
            while len(self.answered) < wanted:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.02)


@asynccontextmanager
async def loading(
    url: str, clients: int = 8, pause_seconds: float = 0.005, *, streams: bool = False
) -> AsyncIterator[Load]:
    """Runs clients until the end of the block; with `streams` every other client asks for streams."""
    load = Load()
    tasks = [
        asyncio.create_task(_client(url, load, number, pause_seconds, stream=streams and number % 2 == 1))
        for number in range(clients)
    ]
    try:
        yield load
    finally:
        load.stops = True
        await asyncio.gather(*tasks)


async def _client(url: str, load: Load, number: int, pause_seconds: float, *, stream: bool) -> None:
    """One connection after the other; a new one only when the gateway has said that the old one ends."""
    count = 0
    while not load.stops:
        try:
            reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        except OSError as problem:
            load.failures.append(f"refused: {problem}")
            await asyncio.sleep(0.05)
            continue
        try:
            ends = False
            while not ends and not load.stops:
                count += 1
                ends = await _one(reader, writer, load, f"{load.name}-{number}-{count}", stream=stream)
                await asyncio.sleep(pause_seconds)
        except (OSError, asyncio.IncompleteReadError) as problem:
            load.failures.append(f"reset: {type(problem).__name__}: {problem}")
        finally:
            writer.close()


async def _one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, load: Load, name: str, *, stream: bool
) -> bool:
    """Whether the connection ends with this answer."""
    sent = json.dumps({**_MODEL, "stream": stream}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nx-request-id: {name}\r\n"
    )
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(sent) + sent)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    is_chunked = "transfer-encoding: chunked" in answer
    body = await _chunks(reader) if is_chunked else await reader.readexactly(_length(answer))
    if " 200 " not in answer.partition("\r\n")[0]:
        load.failures.append(f"{answer.partition(chr(13))[0]}: {body[:200]!r}")
    elif stream and not body.endswith(b"data: [DONE]\n\n"):
        load.failures.append(f"cut: {body[-200:]!r}")
    else:
        load.answered.append(name)
        load.streams += stream
    return "connection: close" in answer


def _length(answer: str) -> int:
    return int(answer.partition("content-length: ")[2].partition("\r\n")[0])


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body
