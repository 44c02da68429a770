"""What metrics and traces are made of: told once for each request, when it has been booked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from proxy.domain.errors import GatewayError, kind_of
from proxy.domain.request_log import RequestLog
from proxy.domain.routing import Candidate

if TYPE_CHECKING:
    from proxy.application.exchange import Exchange

_CANCELLED = "cancelled"


class ExchangeObserver(Protocol):
    """Is told of requests; on the path of every one, so it must be quick, and raise nothing."""

    def settled(self, exchange: Exchange) -> None:
        """The request is booked."""
        ...


class Nobody:
    """ExchangeObserver: the default."""

    def settled(self, exchange: Exchange) -> None:
        pass


NOBODY: Final = Nobody()


class Observers:
    """ExchangeObserver: several, each told in turn."""

    def __init__(self, *observers: ExchangeObserver) -> None:
        self._observers = observers

    def settled(self, exchange: Exchange) -> None:
        for observer in self._observers:
            observer.settled(exchange)


class HttpMetrics(Protocol):
    """Counts answers of all routes, and tells everything that is counted."""

    def responded(self, route: str | None, status: int) -> None:
        """An answer has ended. `route` is its path's template, None if no route fits; status 0 if it was given up."""
        ...

    async def page(self, accept: str) -> MetricsPage:
        """All metrics as of now, in a format that the `Accept` header names, else Prometheus's text."""
        ...


class MetricsPage(NamedTuple):
    """What a scraper is answered."""

    content_type: str
    body: bytes


class TriedOnce(NamedTuple):
    """What became of an attempt. `error` is a short stable word."""

    candidate: Candidate
    calls: int
    is_hedge: bool
    queued_seconds: float
    error: str | None


class SettledFacts(NamedTuple):
    """A booked request without what it holds in memory: bodies, connections.

    `losers` are the rows of calls that lost against another one, `exceeded_scope` whose limit or budget refused it.
    """

    row: RequestLog
    losers: Sequence[RequestLog]
    overhead_seconds: float | None
    attempts: Sequence[TriedOnce]
    exceeded_scope: str | None


def facts_of(exchange: Exchange) -> SettledFacts:
    """Of an exchange that is booked."""
    row = exchange.booked
    if row is None:
        raise AssertionError("only booked requests are observed")
    tried = []
    for attempt in exchange.walked:
        error = None if attempt.error is None else word_for(attempt.error)
        tried.append(TriedOnce(attempt.candidate, attempt.calls, attempt.is_hedge, attempt.queued_seconds, error))
    return SettledFacts(
        row, exchange.booked_losers(), exchange.answered_overhead_seconds(), tried, exchange.exceeded_scope
    )


def word_for(error: BaseException) -> str:
    """What ended an attempt or a call."""
    return kind_of(error) if isinstance(error, GatewayError) else _CANCELLED
