"""Traces are made of what is to be kept, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.traces import TraceMode
from proxy.application.tracing import offer_trace
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import GatewayError, NoSuitableDeployment
from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace
from tests.application.conftest import chat_request
from tests.harness import Upstream, fails, says


@dataclass
class Kept:
    """A TraceStore that keeps whatever it is offered."""

    mode: TraceMode
    offered: list[RequestTrace] = field(default_factory=list)

    def offer(self, row: RequestLog, trace: RequestTrace) -> None:
        self.offered.append(trace)

    def state(self) -> Mapping[str, Any]:
        return {}


async def serve(orchestrator: KernelOrchestrator, asked: ChatRequest, traces: Kept) -> None:
    """What the handler does, also with requests that fail."""
    with orchestrator.exchange("r", lambda: True) as exchange:
        exchange.asked(asked)
        try:
            await orchestrator.complete(exchange, asked, {})
        except GatewayError as error:
            exchange.failed(error, 500)
        else:
            exchange.answering(200)
    offer_trace(traces, exchange)


@pytest.mark.parametrize(("mode", "count"), [(TraceMode.OFF, 0), (TraceMode.NOTABLE, 0), (TraceMode.ALL, 1)])
async def test_a_plain_success_is_offered_only_where_all_are_kept(
    orchestrator: KernelOrchestrator, upstream: Upstream, mode: TraceMode, count: int
) -> None:
    upstream.answer(says())
    traces = Kept(mode)
    await serve(orchestrator, chat_request(), traces)
    assert len(traces.offered) == count


@pytest.mark.parametrize("asked", ["z-ai/glm-4.6", "auto"])
@pytest.mark.parametrize(("mode", "count"), [(TraceMode.OFF, 0), (TraceMode.NOTABLE, 1), (TraceMode.ALL, 1)])
async def test_a_failure_is_offered_wherever_any_are_kept(
    orchestrator: KernelOrchestrator, upstream: Upstream, mode: TraceMode, count: int, asked: str
) -> None:
    upstream.answer(fails(400))
    traces = Kept(mode)
    await serve(orchestrator, chat_request(model=asked), traces)
    assert [trace.attempts[0].status for trace in traces.offered] == [400] * count


async def test_a_retry_is_notable(orchestrator: KernelOrchestrator, upstream: Upstream) -> None:
    upstream.answer(fails(503), says())
    traces = Kept(TraceMode.NOTABLE)
    await serve(orchestrator, chat_request(), traces)
    (trace,) = traces.offered
    assert [(each.calls, each.status) for each in trace.attempts] == [(2, 200)]


async def test_a_request_that_was_never_planned_tells_the_reasons_if_there_are_any(
    orchestrator: KernelOrchestrator,
) -> None:
    traces = Kept(TraceMode.NOTABLE)
    for error in (NoSuitableDeployment("m", [("a", "no vision")]), GatewayError("something else")):
        with orchestrator.exchange("r", lambda: True) as exchange:
            exchange.asked(chat_request())
            exchange.failed(error, 400)
        offer_trace(traces, exchange)
    (trace,) = traces.offered
    assert [(each.deployment, each.reason) for each in trace.dropped] == [("a", "no vision")]
