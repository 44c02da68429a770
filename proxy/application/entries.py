"""What the books hold of a request: the intent before a call is made, and the row of each call that has ended."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from proxy.application.admission import Admission
from proxy.application.booking import NO_COSTS, Accounting, Turn
from proxy.domain.chat import AnswerFacts, ChatRequest, Usage
from proxy.domain.request_log import RequestIntent, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import MOST_TOKENS, UNKNOWN, ModelName, TokenCount

_UNREAD_MODEL = ModelName(UNKNOWN)
_NO_PROVIDER = "none"
_NO_USAGE = Usage(0, 0)
_COUNTS = 4  # of a usage stand in a row, and come first
_model_name = lru_cache(maxsize=1024)(ModelName)


class Ending(NamedTuple):
    """How a request, or a call that lost against another one, has ended."""

    status: RequestStatus
    attempts: int
    was_generated: bool
    may_be_billed: bool
    elapsed_ms: int
    http_status: int | None = None
    error_type: str | None = None
    first_byte_ms: int | None = None


class Entry(NamedTuple):
    """What all that is booked of a request has in common."""

    request_id: str
    started_at: datetime
    request: ChatRequest | None
    admission: Admission

    def intent(self, row_id: UUID, turn: Turn) -> RequestIntent:
        """To be noted before the call of the turn is made."""
        request, admission, candidate = self.request, self.admission, turn.candidate
        principal = admission.principal
        return RequestIntent(
            row_id,
            self.started_at,
            self.request_id,
            request.model if request else None,
            candidate.model,
            candidate.deployment.provider,
            request.stream if request else False,
            principal.key_id,
            principal.team_id,
            principal.organisation_id,
            admission.end_user,
            admission.holds,
        )

    def row(
        self, row_id: UUID, turn: Turn | None, facts: AnswerFacts, ending: Ending, accounting: Accounting
    ) -> RequestLog:
        """The row of the turn, with its usage, its cost and its charges; of a request without one if there is none."""
        request, admission = self.request, self.admission
        principal, requested = admission.principal, request.model if request else None
        candidate = turn.candidate if turn else None
        name = candidate.model if candidate else requested
        usage, usage_source, costs = _NO_USAGE, UsageSource.NONE, NO_COSTS
        if turn is not None and request is not None:
            known, usage_source = turn.usage(request, facts, was_generated=ending.was_generated)
            if known is not None:
                usage = known = _bookable(known)
                usage_source = UsageSource.ESTIMATED if known.estimated else usage_source
            costs = accounting.costs(turn, facts, known, may_be_billed=ending.may_be_billed)
        return RequestLog(
            id=row_id,
            request_id=self.request_id,
            timestamp=self.started_at,
            requested_model=requested,
            model=_model_name(name) if name else _UNREAD_MODEL,
            provider_name=candidate.deployment.provider if candidate else _NO_PROVIDER,
            status=ending.status,
            http_status=ending.http_status,
            error_type=ending.error_type,
            stream=request.stream if request else False,
            attempts=ending.attempts,
            was_fallback=candidate.is_fallback if candidate else False,
            input_tokens=TokenCount(usage.input_tokens),
            output_tokens=TokenCount(usage.output_tokens),
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            usage_source=usage_source,
            estimated_cost=costs.estimated,
            reported_cost=costs.reported,
            cost_source=costs.source,
            response_time_ms=ending.elapsed_ms,
            time_to_first_byte_ms=ending.first_byte_ms,
            generation_id=facts.generation_id or (turn.call.generation_id if turn else None),
            key_id=principal.key_id,
            team_id=principal.team_id,
            organisation_id=principal.organisation_id,
            end_user=admission.end_user,
            service_tier=usage.service_tier,
            charges=admission.charges(costs),
        )


def _bookable(usage: Usage) -> Usage:
    """Whatever an upstream says, its request is booked: what is no count is left out, one beyond all rows cut short."""
    input_tokens, output_tokens, cached, reasoning = usage[:_COUNTS]
    for count in (input_tokens, output_tokens, 0 if cached is None else cached, 0 if reasoning is None else reasoning):
        if type(count) is not int or not 0 <= count <= MOST_TOKENS:
            break
    else:
        return usage
    return Usage(
        _count(input_tokens) or 0,
        _count(output_tokens) or 0,
        _count(cached),
        _count(reasoning),
        usage.cost,
        estimated=True,
    )


def _count(told: object) -> int | None:
    return min(told, MOST_TOKENS) if type(told) is int and told >= 0 else None
