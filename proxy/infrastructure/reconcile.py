"""Asking OpenRouter what it billed: `GET /generation`; and doing so now and then in the background."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout

from proxy.application.reconcile import NoAnswer, Pace, ProviderBusy, ProviderRefused, Reconciliation, Search
from proxy.domain.errors import InvalidValue
from proxy.domain.reconciliation import Bill, Outcome, ReconcileReport
from proxy.domain.values import CostAmount, TokenCount
from proxy.infrastructure.chat_completion.upstream_errors import retry_after_seconds
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.periodic import now_and_then
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.reconciliation import LedgerReconciliation

_logger = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 30.0
_LARGEST_BILL_USD = Decimal(1_000_000)
_SMALLEST_EXPONENT = -30  # all digits are kept as text: of 1e-99999999 that would be 100 MB
_LARGEST_COUNT = 2**63 - 1
_REFUSALS = {
    HTTPStatus.UNAUTHORIZED: "it does not accept the key (HTTP 401); check OPENROUTER_API_KEY",
    HTTPStatus.PAYMENT_REQUIRED: "the account has no credits left (HTTP 402)",
    HTTPStatus.FORBIDDEN: "the key may not ask for generations (HTTP 403)",
}

_BACKGROUND_ROWS = 20
_BACKGROUND_PER_SECOND = 1.0
_YOUNGEST, _OLDEST = timedelta(minutes=5), timedelta(days=7)
_FIRST_WITHIN_SECONDS = 300.0


class _Generation(msgspec.Struct):
    """What is read of `data`; `total_cost` is USD, and null until the generation is accounted for."""

    total_cost: Decimal | None = None
    native_tokens_prompt: int | None = None
    native_tokens_completion: int | None = None


class _Answer(msgspec.Struct):
    data: _Generation


_answers = msgspec.json.Decoder(_Answer)


class OpenRouterBills:
    """BillSource by HTTP."""

    def __init__(self, session: ClientSession, endpoint: ProviderEndpoint) -> None:
        self._session = session
        self._endpoint = endpoint

    async def bill(self, generation_id: str) -> Bill | None:
        try:
            async with self._session.get(
                self._endpoint.base_url.rstrip("/") + "/generation",
                params={"id": generation_id},
                headers=self._endpoint.headers,
                timeout=ClientTimeout(total=_TIMEOUT_SECONDS),
                allow_redirects=False,
            ) as response:
                return await _read(response)
        except (ClientError, OSError, TimeoutError) as problem:
            raise NoAnswer(f"it cannot be reached ({type(problem).__name__})") from problem


async def _read(response: ClientResponse) -> Bill | None:
    status = response.status
    if status == HTTPStatus.OK:
        return read_bill(await response.read())
    if status == HTTPStatus.NOT_FOUND:
        return None
    if status in _REFUSALS:
        raise ProviderRefused(_REFUSALS[HTTPStatus(status)])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise ProviderBusy("it has had too many requests (HTTP 429)", retry_after_seconds(response.headers))
    raise NoAnswer(f"it answered HTTP {status}", about_the_row=status < HTTPStatus.INTERNAL_SERVER_ERROR)


def read_bill(body: bytes) -> Bill | None:
    """None while the cost is not known. Raises NoAnswer for what is no bill."""
    try:
        found = _answers.decode(body).data
        if found.total_cost is None:
            return None
        cost = CostAmount(found.total_cost)
        counts = found.native_tokens_prompt, found.native_tokens_completion
        tokens = [None if count is None else TokenCount(count) for count in counts]
    except (ValueError, RecursionError) as problem:  # InvalidValue and msgspec's errors are ValueErrors
        raise NoAnswer("its answer is no bill") from problem
    is_absurd = cost.usd >= _LARGEST_BILL_USD or cost.usd.adjusted() < _SMALLEST_EXPONENT
    if is_absurd or any(count is not None and count > _LARGEST_COUNT for count in counts):
        raise NoAnswer("its answer is no bill")
    return Bill(cost, *tokens)


@asynccontextmanager
async def reconciling(
    rows: LedgerReconciliation,
    provider: OpenRouterBills,
    every_seconds: float,
    retention_days: int = 0,
    *,
    pace: Pace | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    jitter: Callable[[], float] = random.random,
) -> AsyncIterator[None]:
    """Asks for a few rows now and then until the end, for the first time within five minutes.

    Rows that are fresh have no bill yet, and those of over a week ago are left to the command. At the first trouble a
    round ends. `jitter` is a random number from 0 to 1, so that many gateways do not ask at once.
    """
    reconciliation = Reconciliation(rows, provider, pace or Pace(_BACKGROUND_PER_SECOND), now)

    async def step() -> None:
        await _round(reconciliation, now())
        if retention_days:
            await _quietly(rows.forget(now() - timedelta(days=retention_days)))

    async with now_and_then(
        step, every_seconds, "reconciliation", first_within_seconds=_FIRST_WITHIN_SECONDS, jitter=jitter
    ):
        try:
            yield
        finally:
            reconciliation.stop()


async def _round(reconciliation: Reconciliation, now: datetime) -> None:
    report = ReconcileReport()
    search = Search(since=now - _OLDEST, until=now - _YOUNGEST)
    await _quietly(reconciliation.run(search, report, limit=_BACKGROUND_ROWS))
    total = report.total()
    if total.asked:
        outcomes = {outcome.value: total.outcomes[outcome] for outcome in Outcome}
        _logger.info("costs reconciled", extra={**outcomes, "billed_usd": str(total.billed_usd)})
    if total.outcomes[Outcome.GIVEN_UP]:
        _logger.warning("the provider does not know some generations", extra={"rows": total.outcomes[Outcome.GIVEN_UP]})
    if report.stopped:
        _logger.warning("costs not reconciled", extra={"reason": report.stopped})


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except (InvalidValue, *DATABASE_ERRORS) as problem:
        _logger.warning("costs not reconciled", extra={"reason": type(problem).__name__})
