"""The ledger's row: one for each request, whatever became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID, uuid4

from proxy.domain.budgets import Charge
from proxy.domain.errors import InvalidValue
from proxy.domain.records import named_record
from proxy.domain.values import CostAmount, ModelName, TokenCount


class RequestStatus(StrEnum):
    """How a request ended."""

    SUCCESS = "success"
    REPLAYED = "replayed"  # with what another request of the same idempotency key was answered; nothing was generated
    REFUSED = "refused"  # by the gateway, before anything was sent upstream
    UPSTREAM_ERROR = "upstream_error"
    STREAM_BROKEN = "stream_broken"  # after the first byte had been relayed
    CLIENT_DISCONNECTED = "client_disconnected"
    INTERRUPTED = "interrupted"  # the gateway itself stopped
    GATEWAY_ERROR = "gateway_error"  # our own defect
    HEDGED = "hedged"  # no request, but a call that was made beside a slower or faster one and was not needed

    @property
    def is_broken(self) -> bool:
        """Whether an answer that was on its way did not reach its end, or none was made that should have been."""
        return self in _BROKEN


_BROKEN = frozenset(
    {
        RequestStatus.UPSTREAM_ERROR,
        RequestStatus.STREAM_BROKEN,
        RequestStatus.CLIENT_DISCONNECTED,
        RequestStatus.INTERRUPTED,
        RequestStatus.GATEWAY_ERROR,
    }
)


class CostSource(StrEnum):
    """Where a row's cost comes from."""

    REPORTED = "reported"  # the upstream said what it billed
    COMPUTED = "computed"  # tokens times the price table
    UNKNOWN = "unknown"
    NONE = "none"  # nothing was generated, so nothing was billed


class UsageSource(StrEnum):
    """Where a row's token counts come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    NONE = "none"  # nothing was generated, so there is nothing to count


_NO_TOKENS = TokenCount(0)


class RequestIntent(NamedTuple):
    """A request that is about to be sent upstream; what is left of it in the books if the process dies."""

    id: UUID
    timestamp: datetime
    request_id: str
    requested_model: str | None
    model: str
    provider_name: str
    stream: bool
    key_id: UUID | None = None
    team_id: UUID | None = None
    organisation_id: UUID | None = None
    end_user: str | None = None
    holds: Sequence[Charge] = ()  # set aside in budgets: charged, if nobody can say what it cost


@named_record
class RequestLog:
    """One request as it is booked. Times are milliseconds, costs USD; None is "not known", never zero.

    `service_tier` is the one whose prices held, None for the usual one.
    `charges` are what budgets are charged; they are booked with the row, and are no part of it.
    """

    model: ModelName
    provider_name: str
    id: UUID = field(default_factory=uuid4)
    request_id: str = ""
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    requested_model: str | None = None
    status: RequestStatus = RequestStatus.SUCCESS
    http_status: int | None = None
    error_type: str | None = None
    stream: bool = False
    attempts: int = 0
    was_fallback: bool = False
    input_tokens: TokenCount = _NO_TOKENS
    output_tokens: TokenCount = _NO_TOKENS
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: UsageSource = UsageSource.REPORTED
    estimated_cost: CostAmount | None = None
    reported_cost: CostAmount | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    response_time_ms: int = 0
    time_to_first_byte_ms: int | None = None
    generation_id: str | None = None
    key_id: UUID | None = None
    team_id: UUID | None = None
    organisation_id: UUID | None = None
    end_user: str | None = None
    service_tier: str | None = None
    charges: Sequence[Charge] = ()

    def __post_init__(self) -> None:
        if not self.provider_name or not self.provider_name.strip():
            raise InvalidValue("Provider name cannot be null or empty")
        if self.response_time_ms < 0:
            raise InvalidValue("Response time cannot be negative")

    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens.value + self.output_tokens.value

    def cost(self) -> CostAmount | None:
        """What was billed if that is known, else the estimate, else None."""
        return self.reported_cost if self.reported_cost is not None else self.estimated_cost
