"""Walking a plan of candidates until one answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import pytest

from proxy.application.attempts import first_answer
from proxy.domain.errors import (
    AllProvidersFailed,
    CircuitOpen,
    GatewayError,
    InvalidRequest,
    InvalidUpstreamAnswer,
    LedgerFull,
    PermanentUpstreamError,
    StreamBroken,
    TransientUpstreamError,
)
from proxy.domain.routing import Candidate
from tests.catalogs import candidate


class Upstreams:
    """Answers for each model with its name, unless it has an error to raise; notes who was asked."""

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        self._errors = errors
        self.asked: list[str] = []

    async def __call__(self, candidate: Candidate) -> str:
        self.asked.append(candidate.model)
        if candidate.model in self._errors:
            raise self._errors[candidate.model]
        return f"answer of {candidate.model}"


def candidates(*models: str) -> Sequence[Candidate]:
    return [candidate(model) for model in models]


def unavailable(status: int | None = 503) -> TransientUpstreamError:
    return TransientUpstreamError("unavailable", status=status, kind="no_answer")


PASSED_ON = [
    unavailable(429),
    unavailable(500),
    unavailable(529),
    unavailable(None),
    CircuitOpen("OpenRouter", 30),
    PermanentUpstreamError("no endpoints found for that model", status=404),
]
FINAL: list[Exception] = [
    *(PermanentUpstreamError("refused", status=status) for status in (400, 401, 402, 403, 408, 409, 413, 422)),
    InvalidUpstreamAnswer("no completion"),
    StreamBroken("cut"),
    LedgerFull("full", 5),
    InvalidRequest("bad"),
    RuntimeError("a defect of ours"),
]


async def test_the_first_candidate_that_answers_is_the_only_one_asked() -> None:
    upstreams = Upstreams({})
    assert await first_answer(candidates("a", "b"), upstreams) == "answer of a"
    assert upstreams.asked == ["a"]


@pytest.mark.parametrize("error", PASSED_ON, ids=repr)
async def test_an_outage_or_an_unknown_model_passes_the_request_on(error: GatewayError) -> None:
    """A regression: the fallback must call another model, not the same one under another name."""
    upstreams = Upstreams({"a": error})
    assert await first_answer(candidates("a", "b", "c"), upstreams) == "answer of b"
    assert upstreams.asked == ["a", "b"]


@pytest.mark.parametrize("error", FINAL, ids=repr)
async def test_a_failure_that_another_model_would_not_mend_ends_the_walk(error: Exception) -> None:
    upstreams = Upstreams({"a": error})
    with pytest.raises(type(error)) as raised:
        await first_answer(candidates("a", "b"), upstreams)
    assert raised.value is error
    assert upstreams.asked == ["a"]


async def test_a_final_failure_of_a_later_candidate_is_told_as_it_is() -> None:
    refusal = PermanentUpstreamError("refused", status=400)
    upstreams = Upstreams({"a": unavailable(), "b": refusal})
    with pytest.raises(PermanentUpstreamError) as raised:
        await first_answer(candidates("a", "b", "c"), upstreams)
    assert raised.value is refusal
    assert upstreams.asked == ["a", "b"]


async def test_the_last_candidate_may_answer() -> None:
    upstreams = Upstreams({"a": unavailable(), "b": CircuitOpen("OpenRouter", 1)})
    assert await first_answer(candidates("a", "b", "c"), upstreams) == "answer of c"


async def test_when_all_fail_the_error_names_them_and_their_reasons_in_order() -> None:
    first, second = unavailable(429), CircuitOpen("OpenRouter", 1)
    with pytest.raises(AllProvidersFailed, match=r"^All providers failed: x/a, b$") as raised:
        await first_answer(candidates("x/a", "b"), Upstreams({"x/a": first, "b": second}))
    assert raised.value.attempted == ("x/a", "b")
    assert raised.value.failures == (first, second)


@pytest.mark.parametrize("error", PASSED_ON, ids=repr)
async def test_a_single_candidate_s_own_error_is_told(error: GatewayError) -> None:
    """A client that named one model wants its status, not that all of one failed."""
    with pytest.raises(type(error)) as raised:
        await first_answer(candidates("a"), Upstreams({"a": error}))
    assert raised.value is error


async def test_a_client_that_hangs_up_pays_for_no_fallback() -> None:
    upstreams = Upstreams({"a": asyncio.CancelledError()})
    with pytest.raises(asyncio.CancelledError):
        await first_answer(candidates("a", "b"), upstreams)
    assert upstreams.asked == ["a"]


async def test_a_walk_that_is_cancelled_in_an_attempt_asks_nobody_else() -> None:
    asked: list[str] = []
    begun = asyncio.Event()

    async def never_answers(candidate: Candidate) -> str:
        asked.append(candidate.model)
        begun.set()
        await asyncio.Event().wait()
        return "never"

    walk = asyncio.create_task(first_answer(candidates("a", "b"), never_answers))
    await begun.wait()
    walk.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walk
    assert asked == ["a"]


async def test_each_failure_is_logged_with_its_model_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="proxy.application.attempts"):
        await first_answer(candidates("a", "b"), Upstreams({"a": unavailable()}))
    assert [(record.__dict__["model"], record.__dict__["reason"]) for record in caplog.records] == [("a", "no_answer")]


async def test_an_error_that_is_told_is_not_also_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="proxy.application.attempts"), pytest.raises(TransientUpstreamError):
        await first_answer(candidates("a"), Upstreams({"a": unavailable()}))
    assert caplog.records == []
