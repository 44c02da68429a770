"""Spans of a running gateway, as a collector gets them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from benchmarks.load import model_of
from proxy.api.middlewares.access_log import access_log
from proxy.api.middlewares.authentication import authentication
from proxy.api.middlewares.errors import errors
from proxy.api.middlewares.request_id import request_id
from proxy.bootstrap.gateway import running_gateway
from proxy.bootstrap.logs import spans_are_wanted
from proxy.bootstrap.spans import Tracing, tracing_of
from proxy.domain.catalog import one_provider
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec
from proxy.infrastructure.resilience import Resilience, Timing
from proxy.infrastructure.retry_budget import RetryBudget
from proxy.settings import Settings
from tests.harness import (
    COMPLETION,
    HELLO,
    USAGE,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    cut,
    ending,
    fails,
    gateway_over,
    says,
    streams,
)
from tests.providers.anthropic_upstream import ANTHROPIC
from tests.providers.conftest import AnyPathUpstream
from tests.telemetry.collector import CLIENT, SERVER, Collector, Received, collecting
from tests.telemetry.conftest import Start

FAST = {**HELLO, "model": "fast"}
STREAMED = {**FAST, "stream": True}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """The environment says that spans go there, at once."""
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


async def slow(request: Any) -> Any:
    await asyncio.sleep(30)


def traceparents(upstream: Upstream) -> list[str]:
    return [{name.lower(): value for name, value in headers.items()}["traceparent"] for headers in upstream.headers]


def of_a_kind(spans: list[Received]) -> tuple[Received, list[Received]]:
    """The request's, and those of its calls."""
    (server,) = [each for each in spans if each.span.kind == SERVER]
    calls = [each for each in spans if each.span.kind == CLIENT]
    assert {each.trace for each in spans} == {server.trace}
    assert {each.parent for each in calls} <= {server.id}
    return server, calls


async def test_a_plain_answer(collector: Collector, start: Start, upstream: Upstream) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    upstream.answer(says({**COMPLETION, "usage": {**USAGE, **details}, "service_tier": "flex"}))
    gateway = await start()
    body = {"model": "fast", "messages": [{"role": "user", "content": "CANARY-prompt"}], "user": "CANARY-user"}
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "Authorization": "Bearer CANARY-key"}
    async with gateway.http.post(
        gateway.url / "v1/chat/completions", params={"q": "CANARY-query"}, json=body, headers=headers
    ) as response:
        assert response.status == 200
        request_id = response.headers["x-request-id"]

    server, (call,) = of_a_kind(await collector.all(2))
    assert (server.trace, server.parent) == (TRACE, PARENT)
    assert server.name == "POST /v1/chat/completions"
    assert not server.failed
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "fast",
        "llmgateway.request_id": request_id,
        "llmgateway.outcome": "success",
        "llmgateway.attempts": 1,
        "llmgateway.cost_usd": 0.00123,
    }
    assert call.name == "chat any"
    assert not call.failed
    port = int(upstream.url.split(":")[2].partition("/")[0])
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "any",
        "gen_ai.response.model": "z-ai/glm-4.6",
        "gen_ai.response.id": "gen-1",
        "openai.response.service_tier": "flex",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "llmgateway.provider": "one",
        "llmgateway.deployment": "one/any",
    }
    assert server.resource["service.name"] == "llmgateway"
    assert traceparents(upstream) == [f"00-{TRACE}-{call.id}-01"]
    assert upstream.headers[0]["tracestate"] == "vendor=1"
    assert b"CANARY" not in collector.raw
    assert b"Hi there" not in collector.raw


async def test_a_trace_begins_here_if_the_client_names_none(
    collector: Collector, start: Start, upstream: Upstream
) -> None:
    gateway = await start()
    await gateway.chat(FAST)
    server, (call,) = of_a_kind(await collector.all(2))
    assert server.parent == ""
    assert traceparents(upstream) == [f"00-{server.trace}-{call.id}-03"]  # recorded, and a random id


async def test_what_the_client_does_not_want_to_be_recorded_is_not(
    collector: Collector, start: Start, upstream: Upstream
) -> None:
    gateway = await start()
    await gateway.chat(FAST, traceparent=f"00-{TRACE}-{PARENT}-00")
    await gateway.chat(FAST)
    await collector.all(2)
    assert traceparents(upstream)[0].startswith(f"00-{TRACE}-")
    assert traceparents(upstream)[0].endswith("-00")


async def test_a_stream_lasts_until_its_end(collector: Collector, start: Start, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("Hi"), chunk(" there"), *ending(), pause_seconds=0.05))
    gateway = await start()
    await gateway.raw_chat(STREAMED)
    server, (call,) = of_a_kind(await collector.all(2))
    assert call.attributes["gen_ai.request.stream"] is True
    assert call.attributes["gen_ai.usage.output_tokens"] == 5
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert 0 < call.attributes["gen_ai.response.time_to_first_chunk"] < call.seconds
    assert server.seconds >= call.seconds >= 0.15


async def test_each_retry_has_a_span(collector: Collector, start: Start, upstream: Upstream) -> None:
    upstream.answer(fails(503, message="CANARY"), says())
    gateway = await start(FakeTime().timing())
    await gateway.chat(FAST)
    server, (first, second) = of_a_kind(await collector.all(3))
    assert first.failed
    assert first.attributes["error.type"] == "http_503"
    assert first.attributes["http.response.status_code"] == 503
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert not second.failed
    assert not server.failed
    assert server.attributes["llmgateway.attempts"] == 2
    assert traceparents(upstream) == [f"00-{server.trace}-{each.id}-03" for each in (first, second)]
    assert b"CANARY" not in collector.raw


async def test_a_fallback_has_a_span(
    collector: Collector, start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    write(fallbacks={"general": {"fast": ["large"]}}, routing={"max_attempts": 2})
    upstream.answer(fails(500))
    gateway = await start(FakeTime().timing())
    await gateway.chat(FAST)
    _, (first, second) = of_a_kind(await collector.all(3))
    assert (first.attributes["llmgateway.provider"], first.failed) == ("one", True)
    assert (second.attributes["llmgateway.provider"], second.failed) == ("two", False)


async def test_both_calls_of_a_hedged_request_have_spans(
    collector: Collector, start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    write(models={"fast": model_of("one", "two", strategy="priority", hedge={"after_seconds": 0.05})})
    upstream.answer(slow)
    gateway = await start()
    await gateway.chat(FAST)
    _, (loser, winner) = of_a_kind(await collector.all(3))
    assert (loser.attributes["error.type"], loser.failed) == ("cancelled", True)
    assert (winner.attributes["llmgateway.provider"], winner.failed) == ("two", False)


async def test_a_provider_with_a_dialect_of_its_own(
    collector: Collector, start: Start, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_KEY", "claude-key")
    claude = AnyPathUpstream([ANTHROPIC.answers("Hi!")])
    server = TestServer(claude.app())
    await server.start_server(access_log=None)
    providers = {"claude": {"kind": "anthropic", "base_url": str(server.make_url("/")), "api_key": "${CLAUDE_KEY}"}}
    models = {"fast": {"deployments": [{"provider": "claude", "model": "claude-opus-5"}]}}
    config.write_text(json.dumps({"providers": providers, "models": models}))
    gateway = await start()
    assert (await gateway.chat(FAST))[0] == 200
    request, (call,) = of_a_kind(await collector.all(2))
    assert call.attributes["gen_ai.provider.name"] == "anthropic"
    assert call.attributes["gen_ai.request.model"] == "claude-opus-5"
    assert call.attributes["gen_ai.usage.input_tokens"] > 0
    assert traceparents(claude) == [f"00-{request.trace}-{call.id}-03"]
    await server.close()


async def hung_up(gateway: TestGateway, upstream: Upstream, body: Any) -> None:
    asking = asyncio.create_task(gateway.chat(body))
    while not upstream.calls:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    asking.cancel()


async def test_a_client_that_hung_up(collector: Collector, start: Start, upstream: Upstream) -> None:
    upstream.answer(slow)
    gateway = await start()
    await hung_up(gateway, upstream, FAST)
    server, (call,) = of_a_kind(await collector.all(2))
    assert (server.failed, server.attributes["error.type"]) == (True, "cancelled")
    assert (call.failed, call.attributes["error.type"]) == (True, "cancelled")


async def test_a_client_that_hung_up_on_a_stream(collector: Collector, start: Start, upstream: Upstream) -> None:
    async def stall(request: Any) -> None:
        await asyncio.sleep(30)

    upstream.answer(streams(chunk("Hi"), then=stall))
    gateway = await start()
    await hung_up(gateway, upstream, STREAMED)
    server, (call,) = of_a_kind(await collector.all(2))
    assert server.failed
    assert (call.failed, call.attributes["error.type"]) == (True, "client_disconnected")


async def test_a_stream_that_broke(collector: Collector, start: Start, upstream: Upstream) -> None:
    upstream.answer(streams(chunk("Hi"), then=cut))
    gateway = await start()
    await gateway.raw_chat(STREAMED)
    server, (call,) = of_a_kind(await collector.all(2))
    assert (server.failed, server.attributes["llmgateway.outcome"]) == (True, "stream_broken")
    assert (call.failed, call.attributes["error.type"]) == (True, server.attributes["error.type"])


async def test_refusals_are_no_failures_of_ours(collector: Collector, start: Start) -> None:
    gateway = await start()
    await gateway.chat({**HELLO, "model": "nobody-has-this"})
    for path in ("nowhere", "health/live", "metrics"):
        async with gateway.http.get(gateway.url / path):
            pass
    refused, unknown = await collector.all(2)
    assert refused.attributes["http.response.status_code"] == 404
    assert refused.attributes["llmgateway.outcome"] == "refused"
    assert unknown.name == "GET"
    assert not refused.failed
    assert not unknown.failed


async def test_without_a_collector_all_goes_on_and_ends(
    upstream: Upstream, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with gateway_over(upstream.url, sqlite_url) as gateway:
        for _ in range(5):
            assert (await gateway.chat())[0] == 200
        began = time.monotonic()
    assert time.monotonic() - began < 20


async def test_off_there_is_nothing_on_the_path(sqlite_url: str, tmp_path: Any) -> None:
    settings = Settings(database_url=sqlite_url, llmgateway_data_dir=str(tmp_path))  # type: ignore[call-arg]
    async with tracing_of(settings) as tracing:
        assert tracing == Tracing()
    async with running_gateway(settings) as gateway:
        assert tuple(gateway.app.middlewares) == (request_id, access_log, errors, authentication)
    spec = DeploymentSpec(
        one_provider("p").routes[0].deployments[0], "openai", WireSettings("p", "http://127.0.0.1:9/")
    )
    assert type(Tracing().make_resilience(spec, Breaker("d"), Timing(), RetryBudget())) is Resilience


@pytest.mark.parametrize(
    ("chosen", "environment", "wanted"),
    [
        ("auto", {}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ("on", {}, True),
        ("on", {"OTEL_SDK_DISABLED": "true"}, False),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_whether_spans_are_wanted(chosen: Any, environment: dict[str, str], wanted: bool) -> None:
    settings = Settings(llmgateway_otel=chosen)  # type: ignore[call-arg]
    assert spans_are_wanted(settings, environment) is wanted


async def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours is patched: our module is forgotten, so that it is imported anew, where the extra is not."""
    monkeypatch.delitem(sys.modules, "proxy.infrastructure.telemetry.spans.exporting", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(InvalidValue, match=r"llmgateway\[otel\]"):
        async with tracing_of(Settings(llmgateway_otel="on")):  # type: ignore[call-arg]
            pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    async with tracing_of(Settings(llmgateway_otel="auto")) as tracing:  # type: ignore[call-arg]
        assert tracing == Tracing()
