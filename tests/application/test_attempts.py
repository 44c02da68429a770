"""Walking a plan of candidates until one answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from proxy.application.attempts import Attempt, Walk, WalkLimits, nothing_to_close
from proxy.application.upstream import UpstreamCall
from proxy.domain.errors import (
    AllProvidersFailed,
    CircuitOpen,
    DeadlineExceeded,
    DeploymentBusy,
    GatewayError,
    InvalidRequest,
    InvalidUpstreamAnswer,
    LedgerFull,
    PermanentUpstreamError,
    StreamBroken,
    TransientUpstreamError,
    UpstreamError,
)
from proxy.domain.routing import Candidate, StateSnapshot
from tests.catalogs import deployment

A_LOT = 100


@dataclass
class FakeDeployment:
    """A LiveDeployment that notes what happens to it."""

    name: str
    seems_well: bool = True
    retries_left: int = A_LOT
    is_busy: bool = False
    is_cooling_for_long: bool = False
    inside: int = 0
    events: list[str] = field(default_factory=list)

    def state(self, model: str, *, stream: bool) -> StateSnapshot:
        return StateSnapshot()

    async def rest(self, model: str, most_seconds: float) -> None:
        if self.is_cooling_for_long:
            raise DeploymentBusy(self.name, "it is cooling down, 60 s left", 60)
        self.events.append(f"rested {model}")

    def enter_at_once(self) -> bool:
        self.inside += not self.is_busy
        return not self.is_busy

    async def enter(self, most_seconds: float) -> None:
        if self.is_busy:
            raise DeploymentBusy(self.name, "its queue is full", 1)
        self.inside += 1

    def leave(self) -> None:
        self.inside -= 1

    def answered(self, seconds: float, *, stream: bool) -> None:
        self.events.append("answered")

    def failed(self, error: UpstreamError, seconds: float, model: str, *, stream: bool) -> None:
        self.events.append(f"failed {model} {error.kind}")

    def used(self, tokens: int) -> None: ...

    def take_retry(self) -> bool:
        self.retries_left -= 1
        return self.retries_left >= 0

    def give_back_retry(self) -> None:
        self.events.append("retry given back")

    def p95_seconds(self, *, stream: bool) -> float | None:
        return None

    def drain(self, *, is_drained: bool) -> None: ...

    def report(self) -> dict[str, object]:
        return {}


def candidate(name: str, *, public_model: str = "m", provider: str | None = None) -> Candidate:
    """`name` is the deployment's, which has a provider of its own."""
    return Candidate(deployment(name, provider=provider or name, model=f"{name}-model"), public_model, "for a test")


def fallbacks(*names: str) -> list[Candidate]:
    """Each another model, all of one deployment, as `auto` has it."""
    return [Candidate(deployment("all", provider="all", model=name), name, "for a test") for name in names]


class Scene:
    """Deployments that answer with their model's name, or raise their errors; `asked` notes who was asked."""

    def __init__(
        self, errors: Mapping[str, BaseException | Sequence[BaseException]] = {}, *, calls_each: Mapping[str, int] = {}
    ) -> None:
        self.deployments: dict[str, FakeDeployment] = {}
        self.asked: list[tuple[str, int]] = []
        self._errors = {k: [v] * A_LOT if isinstance(v, BaseException) else list(v) for k, v in errors.items()}
        self._calls_each = calls_each

    def live(self, candidate: Candidate) -> FakeDeployment:
        name = candidate.deployment.name
        return self.deployments.setdefault(name, FakeDeployment(name))

    async def perform(self, attempt: Attempt) -> str:
        model = attempt.candidate.model
        self.asked.append((model, attempt.max_calls))
        attempt.call = UpstreamCall(b"", model, 0.0)
        attempt.call.attempts = self._calls_each.get(model, 1)
        await asyncio.sleep(0)
        if self._errors.get(model):
            raise self._errors[model].pop(0)
        return f"answer of {model}"

    def walk(
        self,
        candidates: Sequence[Candidate],
        *,
        max_calls: int = 4,
        stream: bool = False,
        after: Callable[[Candidate, UpstreamError], Sequence[Candidate]] = lambda _c, _e: (),
        hedge_seconds: float | None = None,
        perform: Callable[[Attempt], Awaitable[str]] | None = None,
        discard: Callable[[str], Awaitable[None]] = nothing_to_close,
    ) -> Walk[str]:
        limits = WalkLimits(max_calls, 1e12, lambda _candidate: hedge_seconds)
        return Walk(candidates, self.live, perform or self.perform, limits, stream=stream, after=after, discard=discard)

    async def first(self, candidates: Sequence[Candidate], *, max_calls: int = 4) -> str:
        return await self.walk(candidates, max_calls=max_calls).first_answer()

    def models(self) -> list[str]:
        return [model for model, _ in self.asked]


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
ABOUT_THE_PROVIDER = [PermanentUpstreamError("refused", status=status) for status in (401, 402, 403)]
FINAL: list[Exception] = [
    *(PermanentUpstreamError("refused", status=status) for status in (400, 408, 409, 413, 422)),
    StreamBroken("cut"),
    LedgerFull("full", 5),
    InvalidRequest("bad"),
    RuntimeError("a defect of ours"),
]


async def test_the_first_candidate_that_answers_is_the_only_one_asked() -> None:
    scene = Scene()
    assert await scene.first([candidate("a"), candidate("b")]) == "answer of a-model"
    assert scene.models() == ["a-model"]
    assert scene.deployments["a"].events == ["answered"]
    assert scene.deployments["a"].inside == 0


@pytest.mark.parametrize("error", PASSED_ON, ids=repr)
async def test_an_outage_or_an_unknown_model_passes_the_request_on(error: GatewayError) -> None:
    scene = Scene({"a": error})
    assert await scene.first(fallbacks("a", "b", "c")) == "answer of b"
    assert scene.models() == ["a", "b"]


@pytest.mark.parametrize("error", [*FINAL, *ABOUT_THE_PROVIDER, InvalidUpstreamAnswer("no completion")], ids=repr)
async def test_a_failure_that_another_model_would_not_mend_ends_the_walk(error: Exception) -> None:
    scene = Scene({"a": error})
    with pytest.raises(type(error)) as raised:
        await scene.first(fallbacks("a", "b"))
    assert raised.value is error
    assert scene.models() == ["a"]
    assert scene.deployments["all"].inside == 0


@pytest.mark.parametrize("error", [*ABOUT_THE_PROVIDER, InvalidUpstreamAnswer("no completion")], ids=repr)
async def test_another_provider_has_another_key_and_other_rules(error: Exception) -> None:
    """Candidates of the provider that has refused are passed over."""
    scene = Scene({"a-model": error})
    same = candidate("also a", provider="a")
    assert await scene.first([candidate("a"), same, candidate("b")]) == "answer of b-model"
    assert scene.models() == ["a-model", "b-model"]


async def test_what_one_provider_s_dialect_cannot_carry_another_deployment_of_the_model_may() -> None:
    cannot = InvalidRequest("'seed' cannot be carried", param="seed")
    scene = Scene({"a-model": cannot})
    assert await scene.first([candidate("a"), candidate("b")]) == "answer of b-model"
    with pytest.raises(InvalidRequest):
        await scene.first([candidate("a"), candidate("b", public_model="a fallback")])
    assert scene.models() == ["a-model", "b-model", "a-model"]


async def test_a_fallback_that_has_no_words_for_a_request_hides_no_failure() -> None:
    """Its client would be told to leave out what the model that it named takes, and not to come again."""
    cannot, overloaded = InvalidRequest("'seed' cannot be carried", param="seed"), unavailable(529)
    scene = Scene({"a-model": overloaded, "b-model": cannot, "c-model": unavailable(), "d-model": cannot})
    for others in ((), (candidate("d", public_model="a fallback"),)):
        with pytest.raises(TransientUpstreamError) as raised:
            await scene.first([candidate("a"), candidate("b"), *others])
        assert raised.value is overloaded
    fallback = candidate("e", public_model="another fallback")
    assert await scene.first([candidate("a"), candidate("b"), fallback]) == "answer of e-model"
    with pytest.raises(AllProvidersFailed):
        await scene.first([candidate("a"), candidate("b"), candidate("c")])


@pytest.mark.parametrize("error", [e for e in FINAL if not isinstance(e, InvalidRequest)], ids=repr)
async def test_a_request_that_is_wrong_is_wrong_everywhere(error: Exception) -> None:
    scene = Scene({"a-model": error})
    with pytest.raises(type(error)):
        await scene.first([candidate("a"), candidate("b")])
    assert scene.models() == ["a-model"]


async def test_a_final_failure_of_a_later_candidate_is_told_as_it_is() -> None:
    refusal = PermanentUpstreamError("refused", status=400)
    scene = Scene({"a": unavailable(), "b": refusal})
    with pytest.raises(PermanentUpstreamError) as raised:
        await scene.first(fallbacks("a", "b", "c"))
    assert raised.value is refusal
    assert scene.models() == ["a", "b"]


async def test_when_all_fail_the_error_names_them_and_their_reasons_in_order() -> None:
    first, second = unavailable(429), CircuitOpen("OpenRouter", 1)
    with pytest.raises(AllProvidersFailed, match=r"^All providers failed: x/a, b$") as raised:
        await Scene({"x/a": first, "b": second}).first(fallbacks("x/a", "b"))
    assert raised.value.attempted == ("x/a", "b")
    assert raised.value.failures == (first, second)


@pytest.mark.parametrize("error", PASSED_ON, ids=repr)
async def test_a_single_candidate_s_own_error_is_told(error: GatewayError) -> None:
    """A client that named one model wants its status, not that all of one failed."""
    with pytest.raises(type(error)) as raised:
        await Scene({"a-model": error}).first([candidate("a")])
    assert raised.value is error


@pytest.mark.parametrize(
    ("candidates", "shares"),
    [
        ([candidate("a")], [4]),
        ([candidate("a"), candidate("b")], [1, 3]),
        ([candidate("a"), candidate("b"), candidate("c")], [1, 1, 2]),
        (fallbacks("a", "b", "c"), [2, 1, 1]),
        ([candidate("a"), candidate("b"), candidate("c", public_model="other")], [1, 2, 1]),
        ([candidate(name) for name in "abcdef"], [1, 1, 1, 1]),
    ],
    ids=["one", "two deployments", "three", "auto", "two and a fallback", "more than calls"],
)
async def test_calls_are_shared_out(candidates: Sequence[Candidate], shares: list[int]) -> None:
    """Another deployment of the model is better than waiting; a fallback is kept one call. Never more than all."""
    everybody = [each.model for each in candidates]
    scene = Scene(dict.fromkeys(everybody, unavailable()), calls_each=dict(zip(everybody, shares, strict=False)))
    with pytest.raises((AllProvidersFailed, TransientUpstreamError)):
        await scene.first(candidates, max_calls=4)
    assert [share for _, share in scene.asked] == shares
    assert sum(shares) == 4


async def test_calls_that_were_not_used_are_left_for_the_next() -> None:
    """A breaker that refuses costs no call."""
    scene = Scene({"a": CircuitOpen("a", 1), "b": unavailable()}, calls_each={"a": 0})
    assert await scene.first(fallbacks("a", "b", "c")) == "answer of c"
    assert scene.asked == [("a", 2), ("b", 3), ("c", 3)]


async def test_a_deployment_without_a_free_place_is_passed_over() -> None:
    scene = Scene()
    scene.live(candidate("a")).is_busy = True
    assert await scene.first([candidate("a"), candidate("b")]) == "answer of b-model"
    assert scene.models() == ["b-model"]
    assert scene.deployments["a"].inside == 0


async def test_a_second_try_at_a_deployment_that_fails_takes_from_the_retry_budget() -> None:
    scene = Scene({"a-model": unavailable(), "b-model": unavailable()})
    for name in "bc":
        scene.deployments[name] = FakeDeployment(name, seems_well=False, retries_left=0)
    with pytest.raises(TransientUpstreamError):
        await scene.first([candidate("a"), candidate("b"), candidate("c")])
    assert scene.models() == ["a-model"]
    scene.deployments["b"].retries_left = 1
    with pytest.raises(AllProvidersFailed):
        await scene.first([candidate("a"), candidate("b"), candidate("c")])
    assert scene.models()[1:] == ["a-model", "b-model"]
    assert "retry given back" in scene.deployments["b"].events


async def test_a_second_try_at_a_deployment_that_is_well_is_free() -> None:
    scene = Scene({"a-model": unavailable()})
    scene.deployments["b"] = FakeDeployment("b", retries_left=0)
    assert await scene.first([candidate("a"), candidate("b")]) == "answer of b-model"


async def test_when_the_time_is_up_nobody_else_is_asked() -> None:
    late = DeadlineExceeded("too late")
    scene = Scene({"a": unavailable(), "b": late})
    with pytest.raises(AllProvidersFailed) as raised:
        await scene.first(fallbacks("a", "b", "c"))
    assert raised.value.failures[1] is late
    assert scene.models() == ["a", "b"]


async def test_an_error_may_ask_for_other_candidates_than_the_plan_has() -> None:
    too_long = PermanentUpstreamError("too long", status=400, details={"code": "context_length_exceeded"})
    scene = Scene({"a-model": too_long})
    walk = scene.walk(
        [candidate("a"), candidate("b")],
        after=lambda _candidate, error: [candidate("long")] if error.is_context_window else [],
    )
    assert await walk.first_answer() == "answer of long-model"
    assert scene.models() == ["a-model", "long-model"]
    assert [attempt.error for attempt in walk.attempts] == [too_long, None]


async def test_a_stream_keeps_its_place_until_it_is_closed() -> None:
    scene = Scene({"a-model": unavailable()})
    walk = scene.walk([candidate("a"), candidate("b")], stream=True)
    await walk.first_answer()
    assert (scene.deployments["a"].inside, scene.deployments["b"].inside) == (0, 1)


async def test_a_client_that_hangs_up_pays_for_no_fallback() -> None:
    scene = Scene({"a": asyncio.CancelledError()})
    with pytest.raises(asyncio.CancelledError):
        await scene.first(fallbacks("a", "b"))
    assert scene.models() == ["a"]
    assert scene.deployments["all"].inside == 0
    assert scene.deployments["all"].events == []


async def test_each_failure_is_logged_with_its_model_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="proxy.application.attempts"):
        await Scene({"a": unavailable()}).first(fallbacks("a", "b"))
    assert [(record.__dict__["model"], record.__dict__["reason"]) for record in caplog.records] == [("a", "no_answer")]


async def test_an_error_that_is_told_is_not_also_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="proxy.application.attempts"), pytest.raises(TransientUpstreamError):
        await Scene({"a-model": unavailable()}).first([candidate("a")])
    assert caplog.records == []


# Deployments that are cooling down.


def resting(name: str) -> Candidate:
    return replace(candidate(name), must_rest=True)


async def test_who_has_to_rest_is_waited_for_before_the_call() -> None:
    scene = Scene({"a-model": unavailable()})
    assert await scene.first([candidate("a"), resting("b")]) == "answer of b-model"
    assert scene.deployments["b"].events == ["rested b-model", "answered"]
    assert scene.deployments["a"].events == ["failed a-model no_answer"]


async def test_nobody_is_waited_for_while_somebody_else_answers() -> None:
    scene = Scene()
    assert await scene.first([candidate("a"), resting("b")]) == "answer of a-model"
    assert "b" not in scene.deployments


async def test_retries_come_before_waiting_for_another() -> None:
    """The other way round with a deployment that may be asked at once."""
    scene = Scene({"a-model": unavailable()})
    await scene.first([candidate("a"), resting("b")])
    assert scene.asked == [("a-model", 3), ("b-model", 3)]


async def test_a_rest_that_would_take_too_long_is_a_busy_deployment() -> None:
    scene = Scene()
    scene.deployments["a"] = FakeDeployment("a", is_cooling_for_long=True)
    with pytest.raises(DeploymentBusy):
        await scene.first([resting("a")])
    assert (scene.asked, scene.deployments["a"].inside) == ([], 0)
    assert await scene.first([resting("a"), resting("b")]) == "answer of b-model"
