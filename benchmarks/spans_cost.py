"""What spans cost when they are on: CPU for a request with one upstream call, and the same without spans.

python -m benchmarks.spans_cost --requests 5000

Claim: with spans a request costs 0.2 ms of CPU more.
Short: --requests 500
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.metrics_cost import booked_exchanges
from proxy.application.upstream import UpstreamCall
from proxy.domain.catalog import Deployment
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec, plain_resilience
from proxy.infrastructure.resilience import Resilience, Timing
from proxy.infrastructure.retry_budget import RetryBudget
from proxy.infrastructure.telemetry.spans.calls import CallSpanEnds, SpannedResilience
from proxy.infrastructure.telemetry.spans.server import OtelSpans

_ROUNDS = 7
_HEADERS = CIMultiDictProxy(
    CIMultiDict({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Host": "gateway"})
)


class Encoding(SpanExporter):
    """An exporter that encodes spans as they are sent, and sends nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


@dataclass
class Reply:
    status: int = 200


async def answered() -> Reply:
    return Reply()


def call_of(exchange: Any) -> UpstreamCall:
    call: UpstreamCall = exchange.walked[0].call
    call.headers = _HEADERS
    call.deadline = time.monotonic() + 1000
    return call


async def without(resilience: Resilience, exchanges: list[Any]) -> None:
    for exchange in exchanges:
        call = call_of(exchange)
        await resilience.run(answered, call.deadline, call.blamed, call.max_attempts, call=call)


async def spanned(spans: OtelSpans, resilience: Resilience, exchanges: list[Any]) -> None:
    ends = CallSpanEnds()
    for exchange in exchanges:
        call = call_of(exchange)
        with spans.serving("POST", "/v1/chat/completions", _HEADERS) as span:
            await resilience.run(answered, call.deadline, call.blamed, call.max_attempts, call=call)
            ends.settled(exchange)
            span.answered(200, "req-1", exchange.booked)


async def measure(requests: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Encoding()))
    tracer = provider.get_tracer("benchmark")
    spec = DeploymentSpec(Deployment("d", "one", "m"), "openai", WireSettings("one", "http://127.0.0.1:9/v1"))
    parts: Any = (spec, Breaker("d"), Timing(), RetryBudget())
    plain, watched, spans = plain_resilience(*parts), SpannedResilience(tracer, *parts), OtelSpans(tracer)
    exchanges = booked_exchanges(requests)
    figures: dict[str, list[float]] = {"off": [], "on": []}
    for _ in range(_ROUNDS):
        for name, run in (("off", without(plain, exchanges)), ("on", spanned(spans, watched, exchanges))):
            began = time.process_time()
            await run
            if name == "on":
                provider.force_flush()
            figures[name].append((time.process_time() - began) / requests * 1e6)
    provider.shutdown()
    off, on = (statistics.median(figures[name]) for name in ("off", "on"))
    print(f"CPU a request: retries and breaker alone {off:.1f} us; with two spans {on:.1f} us: {on - off:.0f} us more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000)
    asyncio.run(measure(parser.parse_args().requests))


if __name__ == "__main__":
    main()
