"""Upstreams that misbehave as they are told, on real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_HANGS_SECONDS = 3600.0


class Fault(StrEnum):
    """What goes wrong before the first token. A slow call is answered all the same."""

    SLOW = "slow"
    RATE_LIMIT = "429"
    SERVER_ERROR = "503"
    CUT = "cut"  # a stream that ends before its first token, or a plain answer half-way
    RESET = "reset"
    HANG = "hang"


FAILURES = (Fault.RATE_LIMIT, Fault.SERVER_ERROR, Fault.CUT, Fault.RESET, Fault.HANG)


def share_of_calls(share: float, faults: tuple[Fault, ...], seed: int) -> Callable[[], Fault | None]:
    """That share of the calls fails, drawn at random; the faults take turns."""
    chance, turns = random.Random(seed), itertools.cycle(faults)
    return lambda: next(turns) if chance.random() < share else None


def never() -> Fault | None:
    return None


@dataclass
class BadUpstream:
    """Answers in about `seconds`, but for what `fault` says for each call. `asked` counts the models of calls.

    `told` are the generation ids of calls that told theirs in the answer's header, `finished` those that were answered
    to the end, `waiting` how many calls are unanswered at the moment.
    """

    name: str
    fault: Callable[[], Fault | None] = never
    seconds: float = 0.01
    slow_seconds: float = 0.5
    retry_after_seconds: int = 1
    url: str = ""
    calls: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)
    told: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    waiting: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls += 1
        fault = self.fault()
        if fault is not None:
            self.faults[fault] += 1
        self.waiting += 1
        try:
            return await self._answer(request, body, fault)
        finally:
            self.waiting -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        identity = f"gen-{self.name}-{self.calls}"
        stream = bool(body.get("stream"))
        if fault in (Fault.RATE_LIMIT, Fault.SERVER_ERROR):
            headers = {"Retry-After": str(self.retry_after_seconds)} if fault is Fault.RATE_LIMIT else {}
            error = {"error": {"code": int(fault.value), "message": "not now"}}
            return web.json_response(error, status=int(fault.value), headers=headers)
        if fault is Fault.RESET:
            return _reset(request)
        if fault is Fault.HANG:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.released.wait(), _HANGS_SECONDS)
        seconds = self.slow_seconds if fault is Fault.SLOW else self.seconds
        if stream:
            return await self._stream(request, body, identity, seconds, is_cut=fault is Fault.CUT)
        await asyncio.sleep(seconds)
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        whole = {"id": identity, "object": "chat.completion", "model": body["model"], "choices": [choice]}
        if fault is Fault.CUT:
            return await _half(request, json.dumps(whole).encode())
        self.finished.add(identity)
        return web.json_response({**whole, "usage": USAGE}, headers={"X-Generation-Id": identity})

    async def _stream(
        self, request: web.Request, body: dict[str, Any], identity: str, seconds: float, *, is_cut: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Generation-Id": identity})
        common = {"id": identity, "object": "chat.completion.chunk", "model": body["model"]}
        with suppress(ConnectionResetError):
            await response.prepare(request)
            self.told.add(identity)
            await response.write(b": thinking\n\n")
            await asyncio.sleep(seconds)
            if is_cut:
                return _reset(request)
            for word in ("one ", "two ", "three"):
                await response.write(_event({**common, "choices": [{"index": 0, "delta": {"content": word}}]}))
                await asyncio.sleep(0)
            stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
            await response.write(_event({**common, "choices": [stop], "usage": USAGE}) + b"data: [DONE]\n\n")
            self.finished.add(identity)
        return response

    def app(self) -> web.Application:
        async def models(_request: web.Request) -> web.Response:
            return web.json_response({"data": []})

        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", models)
        return app


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request, whole: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(whole))})
    with suppress(ConnectionResetError):
        await response.prepare(request)
        await response.write(whole[: len(whole) // 2])
    _reset(request)
    return response


@asynccontextmanager
async def serving(*upstreams: BadUpstream) -> AsyncIterator[None]:
    """Gives each of them its URL; ends what hangs and closes them at the end."""
    servers = [TestServer(upstream.app()) for upstream in upstreams]
    try:
        for upstream, server in zip(upstreams, servers, strict=True):
            await server.start_server(access_log=None)
            upstream.url = str(server.make_url("/v1"))
        yield
    finally:
        for upstream in upstreams:
            upstream.released.set()
        await asyncio.gather(*(server.close() for server in servers))
