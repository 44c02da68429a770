"""A booked request with all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace, exact_usd


@dataclass(frozen=True, slots=True)
class ExplainedRequest:
    """A ledger row and its trace, None if none is kept.

    `others` are rows of the same request id: of a call that lost against a faster one, or of other requests, for
    clients may use an id twice.
    """

    row: RequestLog
    trace: RequestTrace | None = None
    others: Sequence[RequestLog] = ()

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "object": "request",
            **row_as_dict(self.row),
            "trace": self.trace and self.trace.as_dict(),
            "others": [
                {"id": str(other.id), "timestamp": other.timestamp.isoformat(), "status": other.status.value}
                for other in self.others
            ],
        }


def row_as_dict(row: RequestLog) -> dict[str, Any]:
    """The row for programs; costs are exact decimal strings, null when not known."""
    return {
        "id": str(row.id),
        "request_id": row.request_id,
        "timestamp": row.timestamp.isoformat(),
        "requested_model": row.requested_model,
        "model": row.model.value,
        "provider": row.provider_name,
        "status": row.status.value,
        "http_status": row.http_status,
        "error_type": row.error_type,
        "stream": row.stream,
        "attempts": row.attempts,
        "was_fallback": row.was_fallback,
        "input_tokens": row.input_tokens.value,
        "output_tokens": row.output_tokens.value,
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "usage_source": row.usage_source.value,
        "estimated_cost_usd": exact_usd(row.estimated_cost),
        "reported_cost_usd": exact_usd(row.reported_cost),
        "cost_source": row.cost_source.value,
        "response_time_ms": row.response_time_ms,
        "time_to_first_byte_ms": row.time_to_first_byte_ms,
        "generation_id": row.generation_id,
        "key_id": _optional_text(row.key_id),
        "team_id": _optional_text(row.team_id),
        "organisation_id": _optional_text(row.organisation_id),
        "end_user": row.end_user,
        "service_tier": row.service_tier,
    }


def _optional_text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
