"""A span for each call to an upstream: those of retries, fallbacks and hedges too."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from multidict import CIMultiDict
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue
from yarl import URL

from proxy.application.exchange import Exchange
from proxy.application.observing import word_for
from proxy.application.upstream import UpstreamCall
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.deployments.fleet import DeploymentSpec
from proxy.infrastructure.resilience import Resilience, Timing
from proxy.infrastructure.retry_budget import RetryBudget
from proxy.infrastructure.telemetry.spans import names
from proxy.infrastructure.telemetry.spans.server import W3C, fail

_Reply = TypeVar("_Reply")
_LOST = "hedged"
_LARGEST = 2**63 - 1


@dataclass(slots=True, eq=False)
class CallSpan:
    """The span of a call whose answer has begun; it ends when the answer does."""

    span: Span
    first_chunk_seconds: float


class SpannedResilience(Resilience):
    """Resilience whose attempts have spans, and tell the upstream of them."""

    def __init__(
        self, tracer: Tracer, spec: DeploymentSpec, breaker: Breaker, timing: Timing, budget: RetryBudget
    ) -> None:
        super().__init__(breaker, spec.retries, timing, budget)
        self._tracer = tracer
        url = URL(spec.wire.base_url)
        self._standing: dict[str, str | int] = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: names.provider_name(spec.kind, url.host),
            names.CONFIGURED_PROVIDER: spec.deployment.provider,
            names.DEPLOYMENT: spec.deployment.name,
            names.SERVER_ADDRESS: url.host or "",
            names.SERVER_PORT: url.port or 0,
        }

    async def run(
        self,
        attempt: Callable[[], Awaitable[_Reply]],
        deadline: float,
        blamed: set[str] | None = None,
        max_attempts: int | None = None,
        *,
        call: UpstreamCall | None = None,
    ) -> _Reply:
        if call is None:
            return await super().run(attempt, deadline, blamed, max_attempts)
        spanned = self._spanned(attempt, call)
        return await super().run(spanned, deadline, blamed, max_attempts, call=call)

    def _spanned(self, attempt: Callable[[], Awaitable[_Reply]], call: UpstreamCall) -> Callable[[], Awaitable[_Reply]]:
        clients = CIMultiDict(call.headers)

        async def in_a_span() -> _Reply:
            span = self._begin(call)
            call.headers = _part_of(span, clients)
            began = time.perf_counter()
            try:
                reply = await attempt()
            except BaseException as error:
                status = getattr(error, "status", None)
                if isinstance(status, int):
                    span.set_attribute(names.HTTP_STATUS, status)
                fail(span, word_for(error))
                span.end()
                raise
            span.set_attribute(names.HTTP_STATUS, getattr(reply, "status", 0))
            call.observed = CallSpan(span, time.perf_counter() - began)
            return reply

        return in_a_span

    def _begin(self, call: UpstreamCall) -> Span:
        again = {names.HTTP_RESEND_COUNT: call.attempts} if call.attempts else {}
        return self._tracer.start_span(
            f"{names.CHAT} {call.model}",
            kind=SpanKind.CLIENT,
            attributes={**self._standing, names.REQUEST_MODEL: call.model, **again},
        )


class CallSpanEnds:
    """ExchangeObserver that ends the spans of a request's calls, with what their answers told."""

    def settled(self, exchange: Exchange) -> None:
        row = exchange.booked
        if row is None:
            return
        for attempt in exchange.walked:
            call = attempt.call
            if call is None or not isinstance(call.observed, CallSpan):
                continue
            open_span, call.observed = call.observed, None
            _tell_answer(open_span, call, is_stream=row.stream)
            if not exchange.is_answered_by(call):
                fail(open_span.span, _LOST)
            elif row.status.is_broken and row.error_type is not None:
                fail(open_span.span, row.error_type)
            open_span.span.end()


def _tell_answer(open_span: CallSpan, call: UpstreamCall, *, is_stream: bool) -> None:
    facts = call.answer.facts()
    known: dict[str, AttributeValue | None] = {
        names.REQUEST_STREAM: is_stream or None,
        names.RESPONSE_MODEL: facts.model,
        names.RESPONSE_ID: facts.generation_id or call.generation_id,
        names.RESPONSE_SERVICE_TIER: facts.service_tier,
        names.FINISH_REASONS: [facts.finish_reason] if facts.finish_reason else None,
        names.TIME_TO_FIRST_CHUNK: open_span.first_chunk_seconds if is_stream else None,
    }
    if (usage := facts.usage) is not None:
        known |= {
            names.INPUT_TOKENS: usage.input_tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHE_READ_TOKENS: usage.cached_tokens,
            names.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
            names.REASONING_TOKENS: usage.reasoning_tokens,
        }
    open_span.span.set_attributes({name: _fitted(value) for name, value in known.items() if value is not None})


def _fitted(value: AttributeValue) -> AttributeValue:
    """An upstream may claim any count; the exporter takes 64 bits."""
    return min(value, _LARGEST) if isinstance(value, int) else value


def _part_of(span: Span, clients: CIMultiDict[str]) -> CIMultiDict[str]:
    """A client's headers with the span in the place of the client's own as the upstream's parent."""
    headers = clients.copy()
    for name in W3C.fields:
        headers.popall(name, None)
    W3C.inject(headers, context=set_span_in_context(span))
    return headers
