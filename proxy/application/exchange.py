"""One request from admission to its ledger row."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from proxy.application.ports import Ledger, PriceBook
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import NO_FACTS, AnswerFacts, ChatRequest, Usage
from proxy.domain.errors import (
    AllProvidersFailed,
    GatewayError,
    UpstreamError,
    kind_of,
)
from proxy.domain.pricing import price_for
from proxy.domain.request_log import CostSource, RequestIntent, RequestLog, RequestStatus, UsageSource
from proxy.domain.routing import Candidate
from proxy.domain.values import CostAmount, ModelName, TokenCount

_UNREAD_MODEL = ModelName("unknown")
_NO_PROVIDER = "none"
_logger = logging.getLogger(__name__)


class Exchange:
    """What is learnt about a request while it is served; booked once, when the `with` block ends or earlier.

    Use it as a context manager around everything that is done for the request. `settle` may be called before the end
    (a stream is booked before its last byte is handed over); a second call does nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: PriceBook,
        unpriced: UnpricedModels,
        provider_name: str,
        request_id: str,
        client_is_gone: Callable[[], bool] = lambda: True,
    ) -> None:
        self.id: UUID = uuid4()
        self.request_id = request_id
        self.started = time.perf_counter()
        self.started_at = datetime.now(UTC)
        self._ledger = ledger
        self._prices = prices
        self._unpriced = unpriced
        self._provider_name = provider_name
        self._client_is_gone = client_is_gone
        self._request: ChatRequest | None = None
        self._candidate: Candidate | None = None
        self._calls: list[UpstreamCall] = []
        self._status: RequestStatus | None = None
        self._http_status: int | None = None
        self._error_type: str | None = None
        self._first_byte_ms: int | None = None
        self.booked: RequestLog | None = None
        self.blamed: set[str] = set()  # deployments whose breakers count this request as a failure already

    def __enter__(self) -> Self:
        self._ledger.admit()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status is None and error is not None:
            if isinstance(error, asyncio.CancelledError | ConnectionError):
                self.abandoned()
            else:
                self._end(RequestStatus.GATEWAY_ERROR, type(error).__name__)
        self.settle()

    # What happens, in the order in which it does.

    def asked(self, request: ChatRequest) -> None:
        """The request was read and understood."""
        self._request = request

    def calling(self, candidate: Candidate, call: UpstreamCall) -> None:
        """A deployment is about to be called."""
        self._candidate = candidate
        self._calls.append(call)
        if len(self._calls) == 1:
            self._ledger.begin(self._intent(candidate))
        call.on_generation = self._generates

    def _generates(self, generation_id: str) -> None:
        if self.booked is None:
            self._ledger.generating(self.id, generation_id)

    def answering(self, http_status: int) -> None:
        """The first byte of the answer is about to go to the client."""
        self._http_status = http_status
        self._first_byte_ms = self.elapsed_ms()

    def failed(self, error: GatewayError, http_status: int | None = None) -> None:
        """The request ends with this error; the status is what the client is told, None when it is too late to."""
        upstream = isinstance(error, UpstreamError | AllProvidersFailed) or self.attempts > 0
        status = RequestStatus.UPSTREAM_ERROR if upstream else RequestStatus.REFUSED
        if http_status is None:
            status = RequestStatus.STREAM_BROKEN
        else:
            self._http_status = http_status
        self._end(status, kind_of(error))

    def abandoned(self) -> None:
        """Nobody waits for the answer any more: the client hung up, or the gateway is stopping."""
        if self._client_is_gone():
            self._end(RequestStatus.CLIENT_DISCONNECTED, "client_disconnected")
        else:
            self._end(RequestStatus.INTERRUPTED, "interrupted")

    def _end(self, status: RequestStatus, error_type: str) -> None:
        if self._status is None:
            self._status = status
            self._error_type = error_type

    # What is known.

    def elapsed_ms(self) -> int:
        return int((time.perf_counter() - self.started) * 1000)

    @property
    def attempts(self) -> int:
        """Upstream calls made so far, over all candidates."""
        return sum(call.attempts for call in self._calls)

    def overhead_ms(self) -> float:
        """Time since the start that was not spent waiting for an upstream or between retries."""
        waited = sum(call.upstream_seconds for call in self._calls)
        return max(0.0, (time.perf_counter() - self.started - waited) * 1000)

    def facts(self) -> AnswerFacts:
        """What the answer says of itself, as far as it has come."""
        return self._calls[-1].answer.facts() if self._calls else NO_FACTS

    def cost(self, facts: AnswerFacts) -> CostAmount | None:
        """What this answer cost: as billed, else computed from the price table, else not known."""
        usage = facts.usage
        if usage is None:
            return None
        return usage.cost if usage.cost is not None else self._computed(usage, facts.model)

    def _computed(self, usage: Usage, served: str | None) -> CostAmount | None:
        if self._candidate is None:
            return None
        try:
            price = price_for(self._prices.current(), self._candidate.model, served)
            return price.cost_of(usage) if price else None
        except Exception:  # a defect of the accounting must not cost the client its answer
            _logger.exception("cost not computed", extra={"request_id": self.request_id})
            return None

    # The row.

    def settle(self) -> None:
        """Book the request, once."""
        if self.booked is None:
            self.booked = self._row()
            self._ledger.settle(self.booked)

    async def durable(self) -> None:
        """Return when what is booked is as safe as the operator has asked for."""
        await self._ledger.durable()

    def _intent(self, candidate: Candidate) -> RequestIntent:
        request = self._request
        return RequestIntent(
            id=self.id,
            timestamp=self.started_at,
            request_id=self.request_id,
            requested_model=request.model if request else None,
            model=candidate.model,
            provider_name=self._provider_name,
            stream=request.stream if request else False,
        )

    def _row(self) -> RequestLog:
        request, candidate, facts = self._request, self._candidate, self.facts()
        if facts.error_message is not None:  # told in the middle of a stream that went on to its end
            self._end(RequestStatus.STREAM_BROKEN, "error_in_stream")
        usage, source = self._usage(facts)
        requested = request.model if request else None
        model = candidate.model if candidate else requested
        reported = usage.cost if usage else None
        estimated = self._computed(usage, facts.model) if usage else None
        if usage and reported is None and estimated is None:
            self._unpriced.note(facts.model or model or _UNREAD_MODEL.value)
        return RequestLog(
            id=self.id,
            request_id=self.request_id,
            timestamp=self.started_at,
            requested_model=requested,
            model=ModelName(model) if model else _UNREAD_MODEL,
            provider_name=self._provider_name if candidate else _NO_PROVIDER,
            status=self._status or RequestStatus.SUCCESS,
            http_status=self._http_status,
            error_type=self._error_type,
            stream=request.stream if request else False,
            attempts=self.attempts,
            was_fallback=candidate.is_fallback if candidate else False,
            input_tokens=TokenCount(usage.input_tokens if usage else 0),
            output_tokens=TokenCount(usage.output_tokens if usage else 0),
            cached_tokens=usage.cached_tokens if usage else None,
            reasoning_tokens=usage.reasoning_tokens if usage else None,
            usage_source=source,
            estimated_cost=estimated,
            reported_cost=reported,
            cost_source=self._cost_source(reported, estimated),
            response_time_ms=self.elapsed_ms(),
            time_to_first_byte_ms=self._first_byte_ms,
            generation_id=facts.generation_id or (self._calls[-1].generation_id if self._calls else None),
        )

    def _usage(self, facts: AnswerFacts) -> tuple[Usage | None, UsageSource]:
        """The usage as reported, else a marked estimate if something was generated, else nothing."""
        if facts.usage is not None:
            return facts.usage, UsageSource.REPORTED
        generated = self._first_byte_ms is not None and self._request is not None and bool(self._calls)
        if not generated or self._status is RequestStatus.UPSTREAM_ERROR or self._request is None:
            return None, UsageSource.NONE
        output_tokens = self._calls[-1].answer.estimated_output_tokens()
        return Usage(self._request.estimated_input_tokens(), output_tokens, estimated=True), UsageSource.ESTIMATED

    def _cost_source(self, reported: CostAmount | None, estimated: CostAmount | None) -> CostSource:
        if reported is not None:
            return CostSource.REPORTED
        if estimated is not None:
            return CostSource.COMPUTED
        return CostSource.UNKNOWN if any(call.may_have_generated for call in self._calls) else CostSource.NONE
