"""From what an exchange knows to the trace of its request."""

from __future__ import annotations

from proxy.application.attempts import Attempt
from proxy.application.exchange import Exchange
from proxy.application.traces import TraceMode, TraceStore
from proxy.domain.errors import GatewayError, UpstreamError, kind_of
from proxy.domain.routing import Dropped, Plan
from proxy.domain.trace import RequestTrace, TracedAttempt, TracedCandidate, TracedDrop, is_notable, short_success

_OK = 200
_CANCELLED = "cancelled"
_NOT_PLANNED = "refused"


def offer_trace(traces: TraceStore, exchange: Exchange) -> None:
    """Hands over the trace of a request that has been booked; of one that was never planned there is none.

    It is made only if it is to be kept: most requests are plain successes, whose traces nobody will read.
    """
    row = exchange.booked
    if row is None or traces.mode is TraceMode.OFF or (exchange.plan is None and not exchange.reasons):
        return
    plan = exchange.plan
    candidates, dropped = (len(plan.candidates), len(plan.dropped)) if plan else (0, len(exchange.reasons))
    if traces.mode is TraceMode.ALL or is_notable(row, candidates, dropped, len(exchange.walked)):
        traces.offer(row, trace_of(exchange))


def trace_of(exchange: Exchange) -> RequestTrace:
    """Whom the plan had, who was left out, and what became of each attempt."""
    plan, attempts = exchange.plan, tuple(_attempt(each, exchange) for each in exchange.walked)
    if plan is None:
        drops = tuple(TracedDrop(name, "", _NOT_PLANNED, reason) for name, reason in exchange.reasons)
        return RequestTrace(dropped=drops, attempts=attempts)
    return RequestTrace(
        strategy=str(plan.route.strategy),
        candidates=_candidates(plan),
        dropped=tuple(_drop(each) for each in plan.dropped),
        attempts=attempts,
    )


def short_trace(exchange: Exchange) -> str:
    """What became of the attempts so far, in a few printable words."""
    walked = exchange.walked
    if len(walked) == 1 and walked[0].error is None:
        return short_success(walked[0].deployment.name, walked[0].calls, walked[0].seconds)
    return RequestTrace(attempts=tuple(_attempt(each, exchange) for each in exchange.walked)).short()


def _candidates(plan: Plan) -> tuple[TracedCandidate, ...]:
    return tuple(
        TracedCandidate(each.deployment.name, each.model, each.reason, each.is_fallback) for each in plan.candidates
    )


def _drop(dropped: Dropped) -> TracedDrop:
    model = dropped.deployment.model if dropped.deployment else dropped.public_model
    return TracedDrop(dropped.name, model, str(dropped.objection.cause), dropped.reason)


def _attempt(attempt: Attempt, exchange: Exchange) -> TracedAttempt:
    error = attempt.error
    return TracedAttempt(
        deployment=attempt.deployment.name,
        model=attempt.candidate.model,
        status=error.status if isinstance(error, UpstreamError) else _OK if error is None else None,
        error=_word(error),
        calls=attempt.calls,
        queued_seconds=attempt.queued_seconds,
        seconds=attempt.seconds,
        cost=exchange.cost_of(attempt.call),
        is_hedge=attempt.is_hedge,
    )


def _word(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return kind_of(error) if isinstance(error, GatewayError) else _CANCELLED
