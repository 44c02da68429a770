"""An exchange alone: what is learnt of a request becomes one row, whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from proxy.application.booking import Accounting
from proxy.application.exchange import Exchange
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import AnswerFacts, ChatRequest, Usage
from proxy.domain.errors import (
    AllProvidersFailed,
    BodyTooLarge,
    CircuitOpen,
    GatewayError,
    InvalidRequest,
    LedgerFull,
    PermanentUpstreamError,
    StreamBroken,
    TransientUpstreamError,
)
from proxy.domain.pricing import ModelPricing
from proxy.domain.request_log import CostSource, RequestIntent, RequestStatus, UsageSource
from proxy.domain.values import CostAmount
from tests.application.conftest import FakeLedger, FakePrices
from tests.catalogs import candidate

GLM, KIMI = "z-ai/glm-4.6", "moonshotai/Kimi-K2-Instruct-0905"


@dataclass
class Said:
    """What an answer says of itself."""

    said: AnswerFacts
    output_tokens: int = 0

    def facts(self) -> AnswerFacts:
        return self.said

    def estimated_output_tokens(self) -> int:
        return self.output_tokens


def asked(model: str = GLM, text: str = "x" * 400, *, stream: bool = False) -> ChatRequest:
    messages = json.dumps([{"role": "user", "content": text}]).encode()
    body = b'{"model":' + json.dumps(model).encode() + b',"messages":' + messages + b"}"
    return ChatRequest(body=body, model=model, stream=stream, members={"messages": messages})


def called(answer: Said | None = None, attempts: int = 1, upstream_seconds: float = 0.0) -> UpstreamCall:
    call = UpstreamCall(body=b"", model=GLM, deadline=0.0)
    call.attempts = attempts
    call.upstream_seconds = upstream_seconds
    if answer is not None:
        call.answer = answer
    return call


def used(input_tokens: int = 1000, output_tokens: int = 500, *, model: str | None = GLM, **members: Any) -> Said:
    usage = Usage(input_tokens, output_tokens, **members)
    return Said(AnswerFacts(usage=usage, model=model, generation_id="gen-1"))


def exchange(ledger: FakeLedger, prices: Any, client_is_gone: Callable[[], bool] = lambda: True) -> Exchange:
    return Exchange(ledger, Accounting(prices, UnpricedModels()), "req-1", client_is_gone)


def serve(ledger: FakeLedger, prices: Any, answer: Said, model: str = GLM) -> None:
    """A request that was answered."""
    with exchange(ledger, prices) as served:
        served.asked(asked(model))
        served.calling(candidate(model, "test"), called(answer))
        served.answering(200)


def raise_in(served: Exchange, error: BaseException, *steps: Callable[[Exchange], None]) -> None:
    """A request during which something is raised, after these steps; whatever is raised comes out."""

    def run() -> None:
        with served:
            for step in steps:
                step(served)
            raise error

    with pytest.raises(type(error)):
        run()


def upstream_is_called(served: Exchange) -> None:
    served.asked(asked())
    served.calling(candidate(GLM, "test"), called())


# Once, and only once


def test_a_request_is_admitted_before_and_booked_after(ledger: FakeLedger, prices: FakePrices) -> None:
    with exchange(ledger, prices) as served:
        assert (ledger.admitted, ledger.rows) == (1, [])
        assert served.booked is None
    assert served.booked is ledger.row
    assert ledger.row.id == served.id


def test_what_cannot_be_promised_is_not_begun(ledger: FakeLedger, prices: FakePrices) -> None:
    ledger.is_full = True
    begun = False
    with suppress(LedgerFull), exchange(ledger, prices):
        begun = True
    assert (begun, ledger.admitted, ledger.rows) == (False, 0, [])


def test_what_is_promised_to_a_hedge_ends_also_when_it_cannot_be_begun(ledger: FakeLedger, prices: FakePrices) -> None:
    class Failing(FakeLedger):
        def begin(self, intent: RequestIntent) -> None:
            super().begin(intent)
            if len(self.intents) > 1:
                raise ZeroDivisionError

    ledger, first = Failing(), called(used())
    with exchange(ledger, prices) as served:
        served.asked(asked())
        served.calling(candidate(GLM, "test"), first)
        with pytest.raises(ZeroDivisionError):
            served.hedging(candidate(KIMI, "test"), called(attempts=0), first)
        served.answered_by(first)
        served.answering(200)
    own, lost = ledger.rows
    assert (ledger.admitted, own.status, own.attempts) == (2, RequestStatus.SUCCESS, 1)
    assert (lost.status, lost.attempts, lost.cost_source) == (RequestStatus.HEDGED, 0, CostSource.NONE)


def test_nothing_is_promised_to_a_hedge_beside_a_call_that_is_not_known(ledger: FakeLedger, prices: FakePrices) -> None:
    with exchange(ledger, prices) as served, pytest.raises(LookupError):
        served.hedging(candidate(KIMI, "test"), called(), called())
    assert ledger.row.attempts == 0


def test_settling_again_does_nothing(ledger: FakeLedger, prices: FakePrices) -> None:
    with exchange(ledger, prices) as served:
        served.settle()
        first = ledger.row
        served.failed(StreamBroken("cut", kind="stream_cut"))
        served.settle()
    assert ledger.row is first
    assert first.status is RequestStatus.SUCCESS


def test_what_is_raised_after_settling_books_nothing_more(ledger: FakeLedger, prices: FakePrices) -> None:
    raise_in(exchange(ledger, prices), ZeroDivisionError(), Exchange.settle)
    assert ledger.row.status is RequestStatus.SUCCESS


# How it ended


@pytest.mark.parametrize(
    ("error", "http_status", "status", "error_type"),
    [
        (TransientUpstreamError("x", status=503, kind="http_503"), 503, RequestStatus.UPSTREAM_ERROR, "http_503"),
        (PermanentUpstreamError("x", status=400, kind="http_400"), 400, RequestStatus.UPSTREAM_ERROR, "http_400"),
        (AllProvidersFailed(["a", "b"]), 502, RequestStatus.UPSTREAM_ERROR, "AllProvidersFailed"),
        (StreamBroken("x", kind="stream_timeout"), None, RequestStatus.STREAM_BROKEN, "stream_timeout"),
        (CircuitOpen("OpenRouter", 30), 503, RequestStatus.UPSTREAM_ERROR, "CircuitOpen"),
    ],
)
def test_a_failure_after_an_upstream_was_called(
    ledger: FakeLedger,
    prices: FakePrices,
    error: GatewayError,
    http_status: int | None,
    status: RequestStatus,
    error_type: str,
) -> None:
    with exchange(ledger, prices) as served:
        served.asked(asked())
        served.calling(candidate(GLM, "test"), called())
        served.failed(error, http_status)
    row = ledger.row
    assert (row.status, row.http_status, row.error_type) == (status, http_status, error_type)
    assert (row.model.value, row.provider_name) == (GLM, "OpenRouter")


@pytest.mark.parametrize(
    ("error", "http_status", "error_type"),
    [
        (CircuitOpen("OpenRouter", 30), 503, "CircuitOpen"),
        (InvalidRequest("x", param="model", code="missing_required_parameter"), 400, "missing_required_parameter"),
        (InvalidRequest("x"), 400, "InvalidRequest"),
        (BodyTooLarge(10), 413, "request_too_large"),
    ],
)
def test_a_refusal_before_any_upstream_was_called(
    ledger: FakeLedger, prices: FakePrices, error: GatewayError, http_status: int, error_type: str
) -> None:
    with exchange(ledger, prices) as served:
        served.failed(error, http_status)
    row = ledger.row
    assert (row.status, row.http_status, row.error_type) == (RequestStatus.REFUSED, http_status, error_type)
    assert (row.model.value, row.requested_model, row.provider_name) == ("unknown", None, "none")
    assert (row.attempts, row.usage_source, row.cost(), row.cost_source) == (
        0,
        UsageSource.NONE,
        None,
        CostSource.NONE,
    )


def test_the_first_end_is_the_one_that_counts(ledger: FakeLedger, prices: FakePrices) -> None:
    def refuse(served: Exchange) -> None:
        served.failed(InvalidRequest("x"), 400)
        served.failed(CircuitOpen("OpenRouter", 30), 400)
        served.abandoned()

    raise_in(exchange(ledger, prices), asyncio.CancelledError(), refuse)
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.REFUSED, "InvalidRequest")


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ConnectionResetError(), BrokenPipeError()])
def test_a_client_that_hangs_up(ledger: FakeLedger, prices: FakePrices, error: BaseException) -> None:
    raise_in(exchange(ledger, prices), error, upstream_is_called)
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.CLIENT_DISCONNECTED, "client_disconnected")
    assert ledger.row.http_status is None


def test_a_gateway_that_stops_while_its_client_waits(ledger: FakeLedger, prices: FakePrices) -> None:
    raise_in(exchange(ledger, prices, lambda: False), asyncio.CancelledError(), upstream_is_called)
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.INTERRUPTED, "interrupted")


def test_a_defect_is_booked_as_ours_and_not_swallowed(ledger: FakeLedger, prices: FakePrices) -> None:
    raise_in(exchange(ledger, prices), ZeroDivisionError(), upstream_is_called)
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.GATEWAY_ERROR, "ZeroDivisionError")


# What is in the row


def test_the_row_of_an_answered_request(ledger: FakeLedger, prices: FakePrices) -> None:
    before = datetime.now(UTC)
    with exchange(ledger, prices) as served:
        served.asked(asked("auto", stream=True))
        served.calling(candidate(KIMI, "auto"), called(attempts=4))
        usage: dict[str, Any] = {"cached_tokens": 7, "reasoning_tokens": 9, "cost": CostAmount(Decimal("0.5"))}
        served.calling(candidate(GLM, "fallback", is_fallback=True), called(used(**usage), attempts=2))
        served.answering(200)
    row = ledger.row
    assert (row.request_id, row.requested_model, row.model.value) == ("req-1", "auto", GLM)
    assert (row.status, row.http_status, row.error_type) == (RequestStatus.SUCCESS, 200, None)
    assert (row.stream, row.attempts, row.was_fallback) == (True, 6, True)
    assert (row.input_tokens.value, row.output_tokens.value) == (1000, 500)
    assert (row.cached_tokens, row.reasoning_tokens, row.usage_source) == (7, 9, UsageSource.REPORTED)
    assert row.generation_id == "gen-1"
    assert row.time_to_first_byte_ms is not None
    assert 0 <= row.time_to_first_byte_ms <= row.response_time_ms
    assert before <= row.timestamp <= datetime.now(UTC)


def test_two_requests_with_one_id_are_two_rows(ledger: FakeLedger, prices: FakePrices) -> None:
    """The client chooses the request id; the row's own is ours."""
    for _ in range(2):
        serve(ledger, prices, used())
    assert len({row.id for row in ledger.rows}) == 2


def test_overhead_is_what_was_not_spent_waiting(ledger: FakeLedger, prices: FakePrices) -> None:
    with exchange(ledger, prices) as served:
        assert served.overhead_ms() >= 0
        served.calling(candidate(GLM, "test"), called(upstream_seconds=3600))
        assert served.overhead_ms() == 0


# Cost


def test_a_reported_cost_is_the_cost_and_the_estimate_is_kept(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(cost=CostAmount(Decimal("0.000123456789"))))
    row = ledger.row
    assert row.reported_cost == CostAmount(Decimal("0.000123456789"))
    assert row.estimated_cost == CostAmount(Decimal("0.0000002"))
    assert row.cost_source is CostSource.REPORTED
    assert row.cost() == row.reported_cost


def test_a_reported_cost_counts_though_the_tokens_beside_it_are_guessed(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(10, 0, cost=CostAmount(Decimal("0.5")), estimated=True))
    assert (ledger.row.reported_cost, ledger.row.cost_source) == (CostAmount(Decimal("0.5")), CostSource.REPORTED)
    assert ledger.row.usage_source is UsageSource.ESTIMATED


def test_a_reported_cost_of_nothing_is_known_to_be_nothing(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(cost=CostAmount(Decimal(0))))
    assert (ledger.row.cost(), ledger.row.cost_source) == (CostAmount(Decimal(0)), CostSource.REPORTED)


def test_without_a_reported_cost_it_is_computed_exactly(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(1, 1))
    row = ledger.row
    assert (row.reported_cost, row.cost_source) == (None, CostSource.COMPUTED)
    assert row.estimated_cost == CostAmount(Decimal("0.0000000003"))


def test_the_model_that_served_is_the_one_that_is_paid_for(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(1_000_000, 0, model=KIMI))
    assert ledger.row.cost() == CostAmount(Decimal("0.0005"))


def test_a_dated_snapshot_costs_what_its_model_does(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(1_000_000, 0, model=f"{GLM}-20260901"))
    assert ledger.row.cost() == CostAmount(Decimal("0.0001"))


@pytest.mark.parametrize("served", ["nobody/knows", None])
def test_a_model_without_a_price_has_no_known_cost(
    ledger: FakeLedger, prices: FakePrices, caplog: pytest.LogCaptureFixture, served: str | None
) -> None:
    """Null, not zero; warned of, by the model's name; and the request is booked all the same."""
    serve(ledger, prices, used(model=served), model="nobody/knows")
    row = ledger.row
    assert (row.cost(), row.estimated_cost, row.reported_cost) == (None, None, None)
    assert row.cost_source is CostSource.UNKNOWN
    assert (row.input_tokens.value, row.output_tokens.value) == (1000, 500)
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["model"]) == (logging.WARNING, "nobody/knows")


def test_a_reported_cost_needs_no_price(
    ledger: FakeLedger, prices: FakePrices, caplog: pytest.LogCaptureFixture
) -> None:
    serve(ledger, prices, used(model="nobody/knows", cost=CostAmount(Decimal(1))), model="nobody/knows")
    assert ledger.row.cost_source is CostSource.REPORTED
    assert caplog.records == []


# Usage


def test_a_missing_usage_is_estimated_and_marked(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, Said(AnswerFacts(model=GLM), output_tokens=40))
    row = ledger.row
    assert (row.input_tokens.value, row.output_tokens.value) == (100, 40)
    assert (row.usage_source, row.cost_source) == (UsageSource.ESTIMATED, CostSource.COMPUTED)


@pytest.mark.parametrize(
    ("end", "answered"),
    [
        (lambda served: served.failed(TransientUpstreamError("x"), 503), False),
        (lambda served: served.abandoned(), False),
        (lambda served: served.failed(TransientUpstreamError("x"), 503), True),
    ],
    ids=["failed", "abandoned while waiting", "failed late"],
)
def test_what_generated_nothing_used_nothing(
    ledger: FakeLedger, prices: FakePrices, end: Callable[[Exchange], None], answered: bool
) -> None:
    with exchange(ledger, prices) as served:
        served.asked(asked())
        served.calling(candidate(GLM, "test"), called(Said(AnswerFacts(), output_tokens=40)))
        if answered:
            served.answering(200)
        end(served)
    row = ledger.row
    assert (row.input_tokens.value, row.output_tokens.value, row.usage_source) == (0, 0, UsageSource.NONE)
    assert row.cost() is None


@pytest.mark.parametrize(
    "end",
    [lambda served: served.failed(StreamBroken("cut", kind="stream_cut")), lambda served: served.abandoned()],
    ids=["broken", "abandoned"],
)
def test_what_had_begun_is_charged(ledger: FakeLedger, prices: FakePrices, end: Callable[[Exchange], None]) -> None:
    """With what the upstream reported, or an estimate of what came."""
    for answer, source in [
        (Said(AnswerFacts(), output_tokens=40), UsageSource.ESTIMATED),
        (used(10, 5), UsageSource.REPORTED),
    ]:
        with exchange(ledger, prices) as served:
            served.asked(asked(stream=True))
            served.calling(candidate(GLM, "test"), called(answer))
            served.answering(200)
            end(served)
        assert ledger.rows[-1].usage_source is source
        assert ledger.rows[-1].output_tokens.value in (40, 5)
        assert ledger.rows[-1].cost_source is CostSource.COMPUTED


# Accounting failures never break a reply


class BrokenPrices:
    """A PriceBook with a defect."""

    def current(self) -> Mapping[str, ModelPricing]:
        raise ZeroDivisionError


def test_prices_that_cannot_be_read_break_no_reply(ledger: FakeLedger) -> None:
    serve(ledger, BrokenPrices(), used())
    assert ledger.row.status is RequestStatus.SUCCESS
    assert (ledger.row.input_tokens.value, ledger.row.cost()) == (1000, None)


@pytest.mark.parametrize("odd", [-5, 10.5, [1], "7", True, None], ids=str)
@pytest.mark.parametrize("count", ["input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"])
def test_whatever_an_upstream_counts_its_request_is_booked(
    ledger: FakeLedger, prices: FakePrices, count: str, odd: Any
) -> None:
    counts = {"input_tokens": 1000, "output_tokens": 500, "cached_tokens": 30, "reasoning_tokens": 20}
    serve(ledger, prices, used(**(counts | {count: odd})))
    row, optional = ledger.row, count.startswith(("cached", "reasoning"))
    booked = (row.input_tokens.value, row.output_tokens.value, row.cached_tokens, row.reasoning_tokens)
    assert booked == tuple((counts | {count: None if optional else 0}).values())
    assert row.usage_source is (UsageSource.REPORTED if optional and odd is None else UsageSource.ESTIMATED)


def test_a_count_beyond_all_rows_is_cut_short_and_its_bill_kept(ledger: FakeLedger, prices: FakePrices) -> None:
    serve(ledger, prices, used(10, 2**70, cost=CostAmount(Decimal("0.5"))))
    assert (ledger.row.input_tokens.value, ledger.row.output_tokens.value) == (10, 2**63 - 1)
    assert (ledger.row.reported_cost, ledger.row.cost_source) == (CostAmount(Decimal("0.5")), CostSource.REPORTED)


def test_messages_that_cannot_be_measured_break_no_reply(ledger: FakeLedger, prices: FakePrices) -> None:
    """JSON knows no longest integer, Python does."""
    messages = b'[{"role":"user","content":"x","n":' + b"1" * 5000 + b"}]"
    with exchange(ledger, prices) as served:
        served.asked(ChatRequest(body=b"{}", model=GLM, stream=False, members={"messages": messages}))
        served.calling(candidate(GLM, "test"), called(Said(AnswerFacts(model=GLM), output_tokens=40)))
        served.answering(200)
    assert ledger.row.status is RequestStatus.SUCCESS
