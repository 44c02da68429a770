"""From booked requests to counters: on the request's path nothing is done but to put its facts on a list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from proxy.application.exchange import Exchange
from proxy.application.observing import SettledFacts, TriedOnce, facts_of
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.infrastructure.telemetry.metrics.instruments import Instruments
from proxy.infrastructure.telemetry.metrics.tallies import KnownValues, Labels

_logger = logging.getLogger(__name__)
_BATCH = 256  # counted in one go, which takes about a millisecond
_MOST_MODELS, _MOST_DEPLOYMENTS, _MOST_PROVIDERS, _MOST_WORDS = 500, 1000, 100, 100
_NO_MODEL = "unknown"
_REFUSED_BY = {"rate_limit_exceeded": "rate_limit", "budget_exceeded": "budget"}
_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
_ANSWERED_HERE = (RequestStatus.REFUSED, RequestStatus.REPLAYED)  # their times say nothing of a model


_Key = tuple[str | None, str, RequestStatus, int | None, bool]


class _RequestLabels(NamedTuple):
    """What is the same for all requests of one batch that are alike."""

    who: tuple[str, str]
    request: Labels
    duration: Labels
    stream: Labels
    is_timed: bool


class Recorder:
    """ExchangeObserver that counts. `configured_name` gives the catalog's name for what a client asked for, if any."""

    def __init__(self, instruments: Instruments, configured_name: Callable[[str], str | None]) -> None:
        self._to = instruments
        self._configured_name = configured_name
        self._waiting: list[SettledFacts] = []
        self._responses: dict[tuple[str, int], int] = {}
        self._model = KnownValues(_MOST_MODELS)
        self._deployment = KnownValues(_MOST_DEPLOYMENTS)
        self._provider = KnownValues(_MOST_PROVIDERS)
        self._error = KnownValues(_MOST_WORDS)

    def settled(self, exchange: Exchange) -> None:
        self._waiting.append(facts_of(exchange))
        if len(self._waiting) >= _BATCH:
            self.fold()

    def responded(self, route: str | None, status: int) -> None:
        key = (route or _NO_MODEL, status)
        self._responses[key] = self._responses.get(key, 0) + 1

    def turned(self, seconds: float) -> None:
        """A turn of the event loop took so long."""
        self._to.loop_lags.observe((), seconds)

    def fold(self) -> None:
        """Count all that waits."""
        waiting, self._waiting = self._waiting, []
        alike: dict[_Key, _RequestLabels] = {}
        for facts in waiting:
            try:
                self._count(facts, alike)
            except Exception:  # a defect here must not cost a client its answer
                _logger.exception("request not counted", extra={"request_id": facts.row.request_id})
        responses, self._responses = self._responses, {}
        for (route, status), count in responses.items():
            self._to.responses.add((route, _status_class(status)), count)
        self._to.flush()

    def _count(self, facts: SettledFacts, alike: dict[_Key, _RequestLabels]) -> None:
        row = facts.row
        key = (row.requested_model, row.provider_name, row.status, row.http_status, row.stream)
        labels = alike.get(key)
        if labels is None:
            labels = alike[key] = self._labels_of(row)
        who = labels.who
        self._to.requests.add(labels.request)
        if labels.is_timed:
            self._to.durations.observe(labels.duration, row.response_time_ms / 1000)
            if row.stream and row.time_to_first_byte_ms is not None:
                self._to.first_bytes.observe(who, row.time_to_first_byte_ms / 1000)
        if facts.overhead_seconds is not None:
            self._to.overheads.observe(labels.stream, facts.overhead_seconds)
        if row.error_type is not None:
            self._to.errors.add((*who, self._error.word(row.error_type)))
            if facts.exceeded_scope is not None and row.error_type in _REFUSED_BY:
                self._to.refusals.add((_REFUSED_BY[row.error_type], facts.exceeded_scope))
        self._count_use(row, who)
        for loser in facts.losers:
            self._count_use(loser, (who[0], self._provider(loser.provider_name)))
        is_first = True
        for attempt in facts.attempts:
            self._count_attempt(attempt, is_first=is_first)
            is_first = False

    def _count_use(self, row: RequestLog, who: tuple[str, str]) -> None:
        """Tokens and cost."""
        input_tokens, output_tokens = row.input_tokens.value, row.output_tokens.value
        if input_tokens or output_tokens:
            self._to.input_tokens.add(who, input_tokens)
            self._to.output_tokens.add(who, output_tokens)
        if row.cached_tokens:
            self._to.cached_tokens.add(who, row.cached_tokens)
        if row.reasoning_tokens:
            self._to.reasoning_tokens.add(who, row.reasoning_tokens)
        cost = row.cost()
        if cost is not None:
            self._to.cost.add((*who, str(row.cost_source)), float(cost.usd))
        elif row.cost_source is CostSource.UNKNOWN:
            self._to.unknown_costs.add(who)

    def _count_attempt(self, attempt: TriedOnce, *, is_first: bool) -> None:
        deployment = attempt.candidate.deployment
        where = (self._provider(deployment.provider), self._deployment(deployment.name))
        self._to.attempts.add((*where, _reason(attempt, is_first=is_first)))
        if attempt.calls > 1:
            self._to.retries.add(where, attempt.calls - 1)
        if attempt.error is not None:
            self._to.upstream_errors.add((*where, self._error.word(attempt.error)))
        if attempt.queued_seconds:
            self._to.waits.observe(where[1:], attempt.queued_seconds)

    def _labels_of(self, row: RequestLog) -> _RequestLabels:
        name = self._configured_name(row.requested_model) if row.requested_model else None
        model = _NO_MODEL if name is None else self._model(name)
        provider, stream = self._provider(row.provider_name), "true" if row.stream else "false"
        return _RequestLabels(
            who=(model, provider),
            request=(model, provider, row.status.value, _status_class(row.http_status or 0), stream),
            duration=(model, stream),
            stream=(stream,),
            is_timed=row.status not in _ANSWERED_HERE,
        )


def _reason(attempt: TriedOnce, *, is_first: bool) -> str:
    """Why the deployment had its turn."""
    if attempt.is_hedge:
        return "hedge"
    if attempt.candidate.is_fallback:
        return "fallback"
    return "first" if is_first else "elsewhere"


def _status_class(status: int) -> str:
    """`none` when no answer was sent."""
    return _CLASSES[status // 100] if 0 <= status // 100 < len(_CLASSES) else _CLASSES[0]
