"""Fixtures: any kind of provider over an upstream that speaks its dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

from proxy.application.raw_call import LazyHistory, RawSettings
from proxy.application.upstream import IS_LAST, UpstreamCall
from proxy.domain.chat import ChatRequest
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.registry import service_factory
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.http import client_session
from proxy.infrastructure.resilience import Resilience, RetryPolicy
from tests.harness import FakeTime, Upstream
from tests.providers.all_kinds import KINDS
from tests.providers.kinds import API_KEY, Asked, Kind

MODEL = "asked-model"
HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100}
_FAR = 1e9


@dataclass
class AnyPathUpstream(Upstream):
    """A scripted upstream that answers every POST, and remembers its path."""

    paths: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.paths.append(request.path_qs)
            return await self._chat(request)

        app = web.Application(client_max_size=2**28)
        app.router.add_post("/{path:.*}", answer)
        return app


@dataclass
class Streamed:
    """A stream as it came."""

    data: bytes = b""
    metadata: list[dict[str, Any]] = field(default_factory=list)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events that hold JSON."""
        events = self.data.replace(b"\r\n", b"\n").split(b"\n\n")
        return [json.loads(event[6:]) for event in events if event.startswith(b"data: {")]

    @property
    def finish_reasons(self) -> list[str]:
        reasons = [choice.get("finish_reason") for chunk in self.chunks for choice in chunk["choices"]]
        return [reason for reason in reasons if reason]

    @property
    def text(self) -> str:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


@dataclass
class Provider:
    """A service of one kind, and the parts that it stands on."""

    kind: Kind
    service: ChatCompletionClientBase
    upstream: AnyPathUpstream
    breaker: Breaker
    time: FakeTime

    def call(self, body: Any = None, **headers: str) -> tuple[UpstreamCall, LazyHistory, RawSettings]:
        raw = body if isinstance(body, bytes) else json.dumps(body or HELLO).encode()
        request = json.loads(raw)
        members = {"messages": json.dumps(request["messages"]).encode()}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        call = UpstreamCall(body=raw, model=request["model"], deadline=_FAR, headers=named)
        chat = ChatRequest(raw, request["model"], bool(request.get("stream")), members)
        return call, LazyHistory.reading(chat), RawSettings.carrying(call, chat)

    def asked(self) -> Asked:
        """What the upstream was asked first since it was told how to answer."""
        bodies, model_of_path = self.upstream.bodies, self.kind.model_of_path
        asked = self.kind.asked(bodies[0])
        return (
            asked if model_of_path is None else replace(asked, model=model_of_path(self.upstream.paths[-len(bodies)]))
        )

    async def complete(self, body: Any = None, **headers: str) -> tuple[bytes, dict[str, Any]]:
        """The bytes of the answer, and its metadata."""
        _, history, settings = self.call(body, **headers)
        (content,) = await self.service.get_chat_message_contents(history, settings)
        return content.inner_content or b"", content.metadata

    async def stream(self, body: Any = None, into: Streamed | None = None, **headers: str) -> Streamed:
        """The whole stream; what came before an error is in `into`."""
        streamed = into or Streamed()
        asked = body if isinstance(body, bytes) else {**(body or HELLO), "stream": True}
        _, history, settings = self.call(asked, **headers)
        async for (content,) in self.service.get_streaming_chat_message_contents(history, settings):
            streamed.data += content.inner_content or b""
            streamed.metadata.append(content.metadata)
        return streamed

    async def hung_up(self) -> None:
        """Waits until the upstream has noticed that nobody listens."""
        async with asyncio.timeout(10):
            while self.upstream.cancelled == 0:
                await asyncio.sleep(0.005)


def is_last(metadata: dict[str, Any]) -> bool:
    return metadata.get(IS_LAST) is True


Connect = Callable[..., Awaitable[Provider]]


@pytest.fixture
async def connect_kind() -> AsyncIterator[Connect]:
    """Makes providers; keyword arguments are WireSettings' fields."""
    async with AsyncExitStack() as stack:

        async def make(kind: Kind, **wire: Any) -> Provider:
            upstream = AnyPathUpstream([kind.answers("Hi there!")])
            server = TestServer(upstream.app())
            await server.start_server(access_log=None)
            stack.push_async_callback(server.close)
            session = await stack.enter_async_context(client_session(5.0, wire.get("idle_timeout_seconds", 5.0)))
            time = FakeTime()
            breaker = Breaker("Acme", clock=lambda: time.now)
            base_url = str(server.make_url(kind.base_path or "/"))
            settings = WireSettings(**{"provider": "Acme", "base_url": base_url, "api_key": API_KEY, **wire})
            resilience = Resilience(breaker, RetryPolicy(), time.timing())
            factory = service_factory(kind.in_registry)
            service = factory(settings, session, resilience, service_id="acme", ai_model_id=MODEL)
            return Provider(kind, service, upstream, breaker, time)

        yield make


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def provider(request: pytest.FixtureRequest, connect_kind: Connect) -> Provider:
    """Each kind in turn."""
    return await connect_kind(request.param)
