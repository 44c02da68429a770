"""Clients that keep their connections, ask without a pause, and notice whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_BODY = json.dumps({"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}).encode()


@dataclass
class Load:
    """What came of the requests so far: their ids, and what went wrong."""

    name: str = field(default_factory=lambda: secrets.token_hex(4))
    answered: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stops: bool = False

    async def goes_on(self, more: int) -> None:
        """Until so many more were answered."""
        wanted = len(self.answered) + more
        async with asyncio.timeout(30):
            while len(self.answered) < wanted:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def loading(url: str, clients: int = 8, pause_seconds: float = 0.005) -> AsyncIterator[Load]:
    """Runs clients until the end of the block."""
    load = Load()
    tasks = [asyncio.create_task(_client(url, load, number, pause_seconds)) for number in range(clients)]
    try:
        yield load
    finally:
        load.stops = True
        await asyncio.gather(*tasks)


async def _client(url: str, load: Load, number: int, pause_seconds: float) -> None:
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
                ends = await _one(reader, writer, load, f"{load.name}-{number}-{count}")
                await asyncio.sleep(pause_seconds)
        except (OSError, asyncio.IncompleteReadError) as problem:
            load.failures.append(f"reset: {type(problem).__name__}: {problem}")
        finally:
            writer.close()


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, load: Load, name: str) -> bool:
    """Whether the connection ends with this answer."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nx-request-id: {name}\r\n"
    )
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(answer.partition("content-length: ")[2].partition("\r\n")[0])
    body = await reader.readexactly(length)
    if " 200 " in answer.partition("\r\n")[0]:
        load.answered.append(name)
    else:
        load.failures.append(f"{answer.partition(chr(13))[0]}: {body[:200]!r}")
    return "connection: close" in answer
