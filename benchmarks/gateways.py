"""Gateway processes that share one data directory and one database, an upstream, and clients; for killing them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

_URL = re.compile(r"URL\s+(http://\S+)/v1")
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "cost": 0.00042}


@dataclass
class Seen:
    """What the upstream and the clients saw, by request id. `upstream` counts calls.

    `failed` are requests that were not answered although their gateway lived on.
    """

    upstream: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)


def upstream_app(seen: Seen) -> web.Application:
    """Answers within a few milliseconds, plain or in pieces."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.upstream[body["user"]] += 1
        await asyncio.sleep(random.uniform(0, 0.01))
        common = {"id": f"gen-{body['user']}", "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
            return web.json_response({**common, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with suppress(ConnectionResetError):  # of a gateway that was killed
            await stream(request, response, {**common, "object": "chat.completion.chunk"})
        return response

    async def stream(request: web.Request, response: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await response.prepare(request)
        for _ in range(5):
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
            await response.write(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")
            await asyncio.sleep(0.001)
        await response.write(b"data: " + json.dumps({**chunk, "choices": [], "usage": USAGE}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_post("/api/v1/chat/completions", chat)
    app.router.add_get("/api/v1/models", models)
    return app


async def one_request(session: aiohttp.ClientSession, url: str, name: str, seen: Seen) -> bool:
    """Whether it was acknowledged: by a whole plain answer, or a stream's `[DONE]`."""
    stream = int(name.rpartition("-")[2]) % 2 == 0
    body = {"model": "z-ai/glm-4.6", "user": name, "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        async with session.post(f"{url}/v1/chat/completions", json=body, headers={"x-request-id": name}) as response:
            raw = b""
            async for data in response.content.iter_any():
                raw += data
                if stream and b"data: [DONE]" in raw:
                    seen.acknowledged.add(name)
            if not stream and response.status == web.HTTPOk.status_code and json.loads(raw)["usage"]:
                seen.acknowledged.add(name)
    return name in seen.acknowledged


@dataclass(eq=False)
class Gateway:
    """A process that serves, the spool that it writes (workers have several), and what it has said on stderr since."""

    url: str
    process: asyncio.subprocess.Process
    spool: Path
    log: list[str] = field(default_factory=list)
    is_alive: bool = True

    async def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        self.is_alive = False
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def gateway(
    directory: Path, upstream: str, database_url: str, arguments: Sequence[str] = (), **more: str
) -> AsyncIterator[Gateway]:
    """A gateway on a port of its own, with its data below `directory`; killed at the end. `more` settings win."""
    settings = {
        "OPENROUTER_BASE_URL": upstream,
        "OPENROUTER_API_KEY": "sk-or-crash",
        "DATABASE_URL": database_url,
        "LLMGATEWAY_DATA_DIR": str(directory / "data"),
        "LLMGATEWAY_PORT": "0",
        "LLMGATEWAY_LOG_LEVEL": "WARNING",
        "LLMGATEWAY_REQUIRE_KEYS": "auto" if "LLMGATEWAY_MASTER_KEY" in more else "never",
        "RETRY_MAX_RETRIES": "0",
        "OVERLOAD_LAG_SECONDS": "0",  # who is killed under load is not to refuse some of it
        **more,
    }
    command = (sys.executable, "-m", "proxy", "serve", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, **settings}, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said = []
    try:
        async for line in process.stderr:
            said.append(line.decode())
            if found := _URL.search(said[-1]):
                break
        else:
            raise RuntimeError(f"the gateway did not start: {''.join(said)}")
        spools = spool_root(directory).glob(f"[!.]*-{process.pid}-*")
        serving = Gateway(found.group(1), process, max(spools, default=spool_root(directory)), said)
        reader = asyncio.create_task(_read_on(process.stderr, said))
        try:
            yield serving
        finally:
            await serving.kill()
            await reader
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _read_on(stderr: asyncio.StreamReader, said: list[str]) -> None:
    async for line in stderr:
        said.append(line.decode())


def spool_root(directory: Path) -> Path:
    """Where the gateways with their data below `directory` have their spools."""
    return directory / "data" / "spool"


async def until_all_serve(directory: Path, processes: int) -> None:
    """Waits for them: a gateway of several workers says that it serves when the first of them does."""
    async with asyncio.timeout(60):
        while len(list(spool_root(directory).glob("[!.]*/lock"))) < processes:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)  # from its spool to its sockets


async def until_all_is_booked(directory: Path, urls: list[str], *, seconds: float = 30.0, workers: int = 1) -> None:
    """Waits until these gateways, who are all that live, have booked everything and adopted what dead ones left.

    What one worker says of others is up to a second old, so several are asked for longer.
    """
    looks, good = (1 if workers == 1 else 20), 0
    async with asyncio.timeout(seconds), aiohttp.ClientSession() as session:
        while True:
            waiting = 0
            for url in urls:
                async with session.get(f"{url}/health") as response:
                    waiting += (await response.json())["ledger"]["waiting_rows"]
            spools = len(list(spool_root(directory).glob("*/lock")))
            good = good + 1 if waiting == 0 and spools == workers * len(urls) else 0
            if good == looks:
                return
            await asyncio.sleep(0.1)
