"""A scripted upstream and a gateway over it, both on real sockets: what tests of the running gateway are made of."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from proxy.application.allowances import Rulebook
from proxy.bootstrap.gateway import RunningGateway, running_gateway
from proxy.bootstrap.storage import request_logs
from proxy.domain.request_log import RequestLog
from proxy.infrastructure.ledger.segment import Sync
from proxy.infrastructure.resilience import Timing
from proxy.server.listening import bound
from proxy.server.site import serve_on
from proxy.settings import Settings

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.00123}
COMPLETION: dict[str, Any] = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1,
    "model": "z-ai/glm-4.6",
    "provider": "Test",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi there!"},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": USAGE,
}
# A gateway that asks for no key, and has one that administers it; and what that one's holder sends.
ADMINISTERED: dict[str, Any] = {"llmgateway_master_key": "sk-administrator", "llmgateway_require_keys": "never"}
AS_ADMIN = {"Authorization": "Bearer sk-administrator"}
HELLO: dict[str, Any] = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Upstream:
    """A real HTTP server in the upstream's place. It answers from `script` in turn, with the last one ever after."""

    script: list[Answering] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    cancelled: int = 0
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "z-ai/glm-4.6", "context_length": 128000}])
    models_status: int = 200
    url: str = ""

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def answer(self, *script: Answering) -> None:
        """From now on answer like this."""
        self.script = list(script)
        self.bodies.clear()
        self.headers.clear()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        answering = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            return await answering(request)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 1
            raise

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": self.models}, status=self.models_status)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/api/v1/chat/completions", self._chat)
        app.router.add_get("/api/v1/models", self._models)
        return app


def says(body: Any = COMPLETION, *, status: int = 200, headers: dict[str, str] | None = None) -> Answering:
    """An answer with a JSON (or already encoded) body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answering(_request: web.Request) -> web.Response:
        return web.Response(body=raw, status=status, content_type="application/json", headers=headers)

    return answering


def fails(status: int, headers: dict[str, str] | None = None, message: str = "no luck", **members: Any) -> Answering:
    """An error as OpenRouter words it."""
    return says({"error": {"code": status, "message": message, **members}}, status=status, headers=headers)


def chunk(content: str = "", **members: Any) -> bytes:
    """One event of a stream, with a piece of text."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    event = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "z-ai/glm-4.6",
        "choices": [choice],
    }
    return b"data: " + json.dumps({**event, **members}).encode() + b"\n\n"


def ending(usage: dict[str, Any] | None = None) -> list[bytes]:
    """The last events of a stream: finish reason, usage, done."""
    finish = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    return [chunk(choices=finish), chunk(choices=[], usage=usage or USAGE), b"data: [DONE]\n\n"]


def streams(
    *writes: bytes,
    then: Callable[[web.Request], Awaitable[None]] | None = None,
    pause_seconds: float = 0.0,
    generation_header: str | None = "gen-1",
    headers: Mapping[str, str] | None = None,
) -> Answering:
    """A stream, each argument written on its own. `then` runs after the last: to stall, or to cut the connection."""

    async def answering(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **(headers or {})})
        if generation_header is not None:
            response.headers["X-Generation-Id"] = generation_header
        await response.prepare(request)
        for data in writes:
            await response.write(data)
            await asyncio.sleep(pause_seconds)
        if then is not None:
            await then(request)
        return response

    return answering


def held(may_end: asyncio.Event) -> Answering:
    """A stream that begins with "Hel", and goes on to its end when it may."""

    async def answering(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(chunk("Hel"))
        await may_end.wait()
        await response.write(b"".join(ending()))
        return response

    return answering


async def cut(request: web.Request) -> None:
    """Reset the connection."""
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(0)


async def stall(_request: web.Request) -> None:
    """Say nothing any more."""
    await asyncio.sleep(3600)


@dataclass
class FakeTime:
    """Time that passes only when somebody waits for it."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def timing(self) -> Timing:
        """Without jitter: waits are as long as they can be."""
        return Timing(sleep=self.sleep, clock=lambda: self.now, jitter=lambda: 0.0)


@dataclass
class TestGateway:
    """A gateway that serves on a real socket, and a plain HTTP client for it."""

    __test__ = False

    url: URL
    http: aiohttp.ClientSession
    settings: Settings

    async def chat(self, body: Any = None, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers and parsed body of a chat completion; `body` may be raw bytes."""
        status, got, raw = await self.raw_chat(body, **headers)
        return status, got, json.loads(raw)

    async def raw_chat(self, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """The same, with the answer's bytes. Header names are given with `_` for `-`."""
        raw = body if isinstance(body, bytes) else json.dumps(HELLO if body is None else body).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url / "v1/chat/completions", data=raw, headers=sent) as response:
            lowered = {name.lower(): value for name, value in response.headers.items()}
            return response.status, lowered, await response.read()

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and parsed body."""
        async with self.http.get(self.url.join(URL(path))) as response:
            return response.status, await response.json()

    async def rows(self, count: int = 1) -> list[RequestLog]:
        """The booked rows, newest first, once there are `count` of them."""
        async with request_logs(self.settings) as repository:
            async with asyncio.timeout(10):
                while len(rows := await repository.get_recent(10_000)) < count:
                    await asyncio.sleep(0.02)
        return list(rows)

    async def row(self) -> RequestLog:
        """The one row."""
        (row,) = await self.rows(1)
        return row


@asynccontextmanager
async def gateway_over(
    upstream_url: str,
    database_url: str,
    timing: Timing | None = None,
    rules: Callable[[], Rulebook] | None = None,
    sync: Sync = os.fdatasync,
    **settings: Any,
) -> AsyncIterator[TestGateway]:
    """A gateway with that upstream and that (migrated) database, on a free port; `rules` instead of its.

    `sync` forces its spool to the disk.
    """
    assert settings.keys() <= Settings.model_fields.keys()  # others would be ignored
    data_directory = TemporaryDirectory(prefix="gateway-")
    chosen = Settings(
        **{
            "llmgateway_data_dir": data_directory.name,
            "openrouter_base_url": upstream_url,
            "openrouter_api_key": "sk-or-provider-secret",
            "database_url": database_url,
            "retry_base_seconds": 0.0,
            "overload_lag_seconds": 0,  # the loop is also the client's and the upstream's, and the machine is busy
            **settings,
        }
    )
    with data_directory:
        async with running_gateway(chosen, timing, rules, sync) as gateway, _served(gateway, chosen) as url:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as http:
                yield TestGateway(url, http, chosen)


def free_port(stack: AsyncExitStack) -> list[socket.socket]:
    """Sockets that listen on a free port of this machine until the stack ends."""
    sockets = bound("127.0.0.1", 0)
    for each in sockets:
        stack.callback(each.close)
    return sockets


@asynccontextmanager
async def _served(gateway: RunningGateway, settings: Settings) -> AsyncIterator[URL]:
    """As `llmgateway serve` does."""
    async with AsyncExitStack() as stack:
        runner = await serve_on(gateway.app, free_port(stack), gateway, settings, stack)
        host, port = runner.addresses[0]
        yield URL(f"http://{host}:{port}/")
