"""Traces: short for a header, compact for the database, and back again without a loss."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.trace import RequestTrace, TracedAttempt, TracedCandidate, TracedDrop
from proxy.domain.values import CostAmount, ModelName

TEXTS = st.text(max_size=300)
TENTHS_OF_MS = st.integers(0, 10**8).map(lambda tenths: tenths / 10 / 1000)
COSTS = st.none() | st.decimals(0, 1000, places=12).map(CostAmount)
CANDIDATES = st.builds(TracedCandidate, TEXTS, TEXTS, TEXTS, st.booleans())
DROPS = st.builds(TracedDrop, TEXTS, TEXTS, TEXTS, TEXTS)
ATTEMPTS = st.builds(
    TracedAttempt,
    TEXTS,
    TEXTS,
    st.none() | st.integers(100, 599),
    st.none() | TEXTS,
    st.integers(0, 10),
    TENTHS_OF_MS,
    TENTHS_OF_MS,
    COSTS,
    st.booleans(),
)


def traces(entries: int) -> st.SearchStrategy[RequestTrace]:
    def several(entry: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(entry, max_size=entries).map(tuple)

    return st.builds(RequestTrace, TEXTS, several(CANDIDATES), several(DROPS), several(ATTEMPTS))


def row(**members: Any) -> RequestLog:
    return RequestLog(model=ModelName("m"), provider_name="p", **members)


def attempt(deployment: str = "azure/y", **members: Any) -> TracedAttempt:
    return TracedAttempt(deployment, "m", **members)


@given(traces(4))
def test_what_is_stored_comes_back(trace: RequestTrace) -> None:
    """But for what is longer than any name should be."""
    read = RequestTrace.from_compact(trace.compact())
    assert read.compact() == trace.compact()
    for before, after in zip(trace.candidates, read.candidates, strict=True):
        assert after == TracedCandidate(
            before.deployment[:200], before.model[:200], before.reason[:200], before.is_fallback
        )
    for old, new in zip(trace.attempts, read.attempts, strict=True):
        assert (new.status, new.calls, new.cost, new.is_hedge) == (old.status, old.calls, old.cost, old.is_hedge)
        assert new.seconds == pytest.approx(old.seconds, abs=1e-4)


@given(traces(8))
def test_the_short_form_fits_into_a_header(trace: RequestTrace) -> None:
    short = trace.short()
    assert 0 < len(short) < 256
    assert short.isascii()
    assert short.isprintable()


@given(traces(3))
def test_the_compact_form_is_plain_text_for_any_database(trace: RequestTrace) -> None:
    compact = trace.compact()
    assert compact.isascii()
    assert "\x00" not in compact


def test_a_long_trace_keeps_its_first_candidates_and_its_last_attempts() -> None:
    candidates = tuple(TracedCandidate(f"d{n}", "m" * 1000, "r" * 1000) for n in range(500))
    drops = tuple(TracedDrop(f"d{n}", "m", "c", "r") for n in range(60))
    attempts = tuple(attempt(f"d{n}") for n in range(70))
    trace = RequestTrace("weighted", candidates, drops, attempts)
    read = RequestTrace.from_compact(trace.compact())
    assert [each.deployment for each in read.candidates] == [f"d{n}" for n in range(50)]
    assert [each.deployment for each in read.attempts] == [f"d{n}" for n in range(20, 70)]
    assert read.omitted == 450 + 10 + 20
    assert RequestTrace.from_compact(read.compact()).omitted == read.omitted
    assert len(trace.compact()) < 40_000


def test_a_trace_of_one_attempt_is_small() -> None:
    trace = RequestTrace(
        "weighted",
        (TracedCandidate("openrouter/z-ai/glm-4.6", "z-ai/glm-4.6", "only deployment"),),
        attempts=(attempt("openrouter/z-ai/glm-4.6", status=200, seconds=0.8123),),
    )
    assert len(trace.compact()) < 200


@pytest.mark.parametrize(
    ("made", "short"),
    [
        (attempt(status=200, seconds=0.8), "azure/y:200@0.8s"),
        (attempt(status=429, error="http_429", seconds=0.2149), "azure/y:429@0.21s"),
        (attempt(status=503, error="http_503", calls=3, seconds=12), "azure/y:503*3@12s"),
        (attempt(error="timeout", seconds=30), "azure/y:timeout@30s"),
        (attempt(status=200, error="invalid_answer"), "azure/y:invalid_answer@0s"),
        (attempt(error="CircuitOpen", calls=0), "azure/y:CircuitOpen@0s"),
        (attempt(status=200, seconds=1, is_hedge=True), "hedge azure/y:200@1s"),
        (attempt(), "azure/y:pending@0s"),
        (attempt("my own\ndéployment", status=200), "my?own?d?ployment:200@0s"),
    ],
)
def test_an_attempt_in_short(made: TracedAttempt, short: str) -> None:
    assert RequestTrace(attempts=(made,)).short() == short


def test_several_attempts_in_short() -> None:
    trace = RequestTrace(attempts=(attempt("openrouter/x", status=429, seconds=0.21), attempt(status=200, seconds=0.8)))
    assert trace.short() == "openrouter/x:429@0.21s > azure/y:200@0.8s"
    assert RequestTrace().short() == "none"


def test_of_many_attempts_the_last_ones_are_told() -> None:
    short = RequestTrace(attempts=tuple(attempt(f"deployment-number-{n}", status=503) for n in range(30))).short()
    assert short.startswith("... > deployment-number-")
    assert short.endswith(" > deployment-number-29:503@0s")
    assert len(short) > 200


@pytest.mark.parametrize(
    ("trace", "booked"),
    [
        (RequestTrace(attempts=(attempt(), attempt())), row()),
        (RequestTrace(candidates=(TracedCandidate("a", "m", "r"), TracedCandidate("b", "m", "r"))), row()),
        (RequestTrace(dropped=(TracedDrop("a", "m", "c", "r"),)), row()),
        (RequestTrace(attempts=(attempt(calls=2),)), row(attempts=2)),
        *((RequestTrace(), row(status=status)) for status in RequestStatus if status not in ("success", "replayed")),
    ],
)
def test_choices_second_calls_and_failures_are_notable(trace: RequestTrace, booked: RequestLog) -> None:
    assert trace.is_notable(booked)


@pytest.mark.parametrize("status", [RequestStatus.SUCCESS, RequestStatus.REPLAYED])
def test_the_only_deployment_s_success_is_not(status: RequestStatus) -> None:
    trace = RequestTrace("weighted", (TracedCandidate("a", "m", "only"),), attempts=(attempt(status=200),))
    assert not trace.is_notable(row(status=status, attempts=1))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", '"v"', "{}", '{"v":2}'),
        *('{"v":1,"c":[["a"]]}', '{"v":1,"c":7}', '{"v":1,"a":[[1,2]]}'),
        '{"v":1,"a":[["d","m",200,null,1,0,0,"much",0]]}',
    ],
)
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        RequestTrace.from_compact(text)


def test_the_long_form_is_json_with_exact_costs() -> None:
    trace = RequestTrace(attempts=(attempt(status=200, cost=CostAmount(Decimal("0.000000000001"))),))
    told = json.loads(json.dumps(trace.as_dict()))
    assert told["attempts"][0]["cost_usd"] == "0.000000000001"
    assert told["strategy"] is None
