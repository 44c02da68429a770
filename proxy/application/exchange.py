"""One request from admission to its ledger row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import UUID

from proxy.application.admission import UNLIMITED, Admission
from proxy.application.attempts import Attempt
from proxy.application.booking import Accounting, Turn
from proxy.application.entries import Ending, Entry
from proxy.application.observing import NOBODY, ExchangeObserver
from proxy.application.ports import Ledger
from proxy.application.upstream import UpstreamCall, nobody_to_tell
from proxy.domain.chat import NO_FACTS, AnswerFacts, ChatRequest
from proxy.domain.errors import (
    AllProvidersFailed,
    GatewayError,
    LedgerFull,
    UpstreamError,
    kind_of,
)
from proxy.domain.identifiers import new_uuid
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.routing import Candidate, Plan
from proxy.domain.values import CostAmount


@dataclass(frozen=True, slots=True)
class _Hedge:
    """Two calls of which one is in vain; `id` is that one's row."""

    id: UUID
    first: Turn
    rival: Turn

    def loser(self, final: Turn | None) -> Turn:
        return self.first if final is self.rival else self.rival


class Exchange:
    """What is learnt about a request while it is served; booked once, when the `with` block ends or earlier.

    Use it as a context manager around everything that is done for the request. `settle` may be called before the end
    (a stream is booked before its last byte is handed over); a second call does nothing.
    """

    __slots__ = (
        "_accounting",
        "_answered",
        "_answering",
        "_client_is_gone",
        "_error_type",
        "_first_byte_ms",
        "_hedges",
        "_http_status",
        "_ledger",
        "_lost",
        "_noted",
        "_observer",
        "_request",
        "_status",
        "_turns",
        "admission",
        "blamed",
        "booked",
        "exceeded_scope",
        "id",
        "plan",
        "reasons",
        "request_id",
        "started",
        "started_at",
        "waits_for_disk",
        "walked",
    )

    def __init__(
        self,
        ledger: Ledger,
        accounting: Accounting,
        request_id: str,
        client_is_gone: Callable[[], bool] = lambda: True,
        observer: ExchangeObserver = NOBODY,
    ) -> None:
        self.id: UUID = new_uuid()
        self.request_id = request_id
        self.started = time.perf_counter()
        self.started_at = datetime.now(UTC)
        self._ledger = ledger
        self._accounting = accounting
        self._client_is_gone = client_is_gone
        self.waits_for_disk = ledger.waits_for_disk
        self._observer = observer
        self._request: ChatRequest | None = None
        self._turns: list[Turn] = []
        self._answering: Turn | None = None
        self._hedges: list[_Hedge] = []
        self._lost: list[tuple[UpstreamCall, RequestLog]] = []
        self._noted: Entry | None = None
        self._status: RequestStatus | None = None
        self._http_status: int | None = None
        self._error_type: str | None = None
        self._first_byte_ms: int | None = None
        self._answered: float | None = None
        self.exceeded_scope: str | None = None  # whose limit or budget refused the request
        self.plan: Plan | None = None  # whom to ask, once it is decided
        self.reasons: Sequence[tuple[str, str]] = ()  # why no plan could be made, by deployment
        self.walked: Sequence[Attempt] = ()  # of the plan, so far: the list grows
        self.booked: RequestLog | None = None
        self.admission: Admission = UNLIMITED
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

    def admitted(self, admission: Admission) -> None:
        """The caller may make the request; what it takes of its limits and budgets is given back when it is booked."""
        self.admission = admission

    def calling(self, candidate: Candidate, call: UpstreamCall) -> None:
        """A deployment is about to be called."""
        turn = Turn(candidate, call)
        if not self._turns:
            self._noted = self._entry()
            self._ledger.begin(self._noted.intent(self.id, turn))
        self._turns.append(turn)
        call.on_generation = self._noting_generations(self.id)

    def hedging(self, candidate: Candidate, call: UpstreamCall, beside: UpstreamCall) -> None:
        """Another deployment is about to be called while this call still runs: whichever loses costs money, too.

        Raises LedgerFull when its row could not be promised; then it must not be called.
        """
        hedge = _Hedge(new_uuid(), self._turn_of(beside), Turn(candidate, call))
        self._ledger.admit()
        self._hedges.append(hedge)  # from now on it is booked, whatever happens: that ends what was reserved for it
        self._turns.append(hedge.rival)
        self._ledger.begin(self._entry().intent(hedge.id, hedge.rival))
        call.on_generation = self._noting_generations(hedge.id)

    def answered_by(self, call: UpstreamCall) -> None:
        """This call's answer is the one that the client gets."""
        self._answering = self._turn_of(call)

    def _turn_of(self, call: UpstreamCall) -> Turn:
        for turn in self._turns:
            if turn.call is call:
                return turn
        raise LookupError("a call that this exchange does not know")

    def _noting_generations(self, row_id: UUID) -> Callable[[str], None]:
        """Until the request is booked."""

        def note(generation_id: str) -> None:
            self._ledger.generating(row_id, generation_id)

        return note

    def answering(self, http_status: int) -> None:
        """The first byte of the answer is about to go to the client."""
        self._http_status = http_status
        self._answered = time.perf_counter()
        self._first_byte_ms = int((self._answered - self.started) * 1000)

    def failed(self, error: GatewayError, http_status: int | None = None) -> None:
        """The request ends with this error; the status is what the client is told, None when it is too late to."""
        upstream = isinstance(error, UpstreamError | AllProvidersFailed) or self.attempts > 0
        status = RequestStatus.UPSTREAM_ERROR if upstream else RequestStatus.REFUSED
        if http_status is None:
            status = RequestStatus.STREAM_BROKEN
        else:
            self._http_status = http_status
        self.reasons = getattr(error, "reasons", ())
        self.exceeded_scope = getattr(error, "scope", None)
        self._end(status, kind_of(error))

    def replayed(self, error_type: str | None, *, is_broken: bool = False) -> None:
        """The answer was made for another request; this one had nothing generated, and costs nothing."""
        self._end(RequestStatus.STREAM_BROKEN if is_broken else RequestStatus.REPLAYED, error_type)

    def abandoned(self) -> None:
        """Nobody waits for the answer any more: the client hung up, or the gateway is stopping."""
        if self._client_is_gone():
            self._end(RequestStatus.CLIENT_DISCONNECTED, "client_disconnected")
        else:
            self._end(RequestStatus.INTERRUPTED, "interrupted")

    def _end(self, status: RequestStatus, error_type: str | None) -> None:
        if self._status is None:
            self._status = status
            self._error_type = error_type

    # What is known.

    def elapsed_ms(self) -> int:
        return int((time.perf_counter() - self.started) * 1000)

    @property
    def attempts(self) -> int:
        """Upstream calls made so far, over all candidates."""
        attempts = 0
        for turn in self._turns:
            attempts += turn.call.attempts
        return attempts

    def overhead_ms(self) -> float:
        """Time since the start that was not spent waiting for an upstream or between retries."""
        overhead = time.perf_counter() - self.started
        for turn in self._turns:
            overhead -= turn.call.upstream_seconds
        return max(0.0, overhead * 1000)

    def answered_overhead_seconds(self) -> float | None:
        """The overhead up to the first byte of an answer that an upstream gave; None of any other."""
        if self._answered is None or not self._turns:
            return None
        overhead = self._answered - self.started
        for turn in self._turns:
            overhead -= turn.call.upstream_seconds
        return max(0.0, overhead)

    def is_answered_by(self, call: UpstreamCall) -> bool:
        """Whether this call's answer is the one that the client gets."""
        return self._final is not None and self._final.call is call

    def booked_losers(self) -> Sequence[RequestLog]:
        """The rows of calls that lost against another one."""
        return [row for _call, row in self._lost] if self._lost else ()

    def facts(self) -> AnswerFacts:
        """What the answer says of itself, as far as it has come."""
        final = self._final
        return final.facts() if final else NO_FACTS

    def cost(self) -> CostAmount | None:
        """What this answer cost: as billed, else computed from a price, else not known."""
        final = self._final
        return self._accounting.cost(final, final.facts()) if final else None

    def cost_of(self, call: UpstreamCall | None) -> CostAmount | None:
        """What one of the calls cost, as booked; None when it is not known, or not booked (yet)."""
        if self.booked is not None and self._final is not None and self._final.call is call:
            return self.booked.cost()
        return next((row.cost() for lost, row in self._lost if lost is call), None)

    @property
    def _final(self) -> Turn | None:
        """The turn whose answer the client gets, or that failed last."""
        return self._answering or (self._turns[-1] if self._turns else None)

    # The row.

    def settle(self) -> None:
        """Book the request, once; and each call that lost against another one, for it is billed like any other."""
        if self.booked is not None:
            return
        final = self._final
        self.booked = row = self._row(final)
        self._ledger.settle(row)
        for turn in self._turns:
            turn.call.on_generation = nobody_to_tell  # nor does a call hold on to the exchange that holds it
        for attempt in self.walked:
            if final is not None and attempt.call is final.call:
                attempt.deployment.used(row.total_tokens())
        rows = [row]
        for hedge in self._hedges:
            lost = self._row_of_loser(hedge)
            self._lost.append((hedge.loser(final).call, lost))
            self._ledger.settle(lost)
            rows.append(lost)
        self.admission.leave(rows)
        self._observer.settled(self)

    async def durable(self) -> None:
        """Return when what is noted is as safe as the operator has asked for: at once, unless `waits_for_disk`.

        Raises LedgerFull when the disk does not take it, so that nothing is sent upstream. A request that is booked has
        an answer, which may be paid: it is not lost to that. The disk has the intent of whatever was sent upstream.
        """
        try:
            await self._ledger.durable()
        except LedgerFull:
            if self.booked is None:
                raise

    def _entry(self) -> Entry:
        return Entry(self.request_id, self.started_at, self._request, self.admission)

    def _row(self, final: Turn | None) -> RequestLog:
        facts = NO_FACTS if final is None else final.facts()
        has_part = self._status is None and facts.tells_failure  # in the midst of what was handed on to its end
        if has_part and self._request is not None and self._request.stream:
            self._end(RequestStatus.STREAM_BROKEN, "error_in_stream")
        elif has_part:
            self._end(RequestStatus.UPSTREAM_ERROR, "error_in_answer")
        status = self._status or RequestStatus.SUCCESS
        losers = [hedge.loser(final) for hedge in self._hedges] if self._hedges else ()
        attempts, may_be_billed = 0, False
        for turn in self._turns:
            if turn not in losers:
                attempts += turn.call.attempts
                may_be_billed = may_be_billed or turn.call.may_have_generated
        was_generated = self._first_byte_ms is not None and (has_part or status is not RequestStatus.UPSTREAM_ERROR)
        ending = Ending(
            status,
            attempts,
            was_generated,
            may_be_billed,
            self.elapsed_ms(),
            self._http_status,
            self._error_type,
            self._first_byte_ms,
        )
        entry = self._noted or self._entry()  # of a request without a call nothing was noted
        return entry.row(self.id, final, facts, ending, self._accounting)

    def _row_of_loser(self, hedge: _Hedge) -> RequestLog:
        """With the usage that it told before it was cut off; else nobody knows what it had generated by then."""
        loser = hedge.loser(self._final)
        ending = Ending(
            RequestStatus.HEDGED,
            loser.call.attempts,
            was_generated=False,
            may_be_billed=loser.call.may_have_generated,
            elapsed_ms=self.elapsed_ms(),
        )
        return self._entry().row(hedge.id, loser, loser.facts(), ending, self._accounting)
