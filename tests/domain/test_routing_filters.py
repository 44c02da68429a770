"""Which deployments a request is kept away from, in words and on the exact boundaries."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.catalog import Capability, Deployment
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import (
    CircuitOpen,
    GatewayError,
    ModelNotFound,
    NoDeploymentAvailable,
    NoSuitableDeployment,
    TokenLimitExceeded,
)
from proxy.domain.routing import Cause, Plan, RequestShape, StateSnapshot, plan
from tests.catalogs import around, asking, deployment, route

IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]
TOOL = {"type": "function", "function": {"name": "f"}}
BLIND = frozenset[Capability]()


def planned(*deployments: Deployment, shape: RequestShape | None = None, **states: StateSnapshot) -> Plan:
    return plan(shape or asking(), around(route(*deployments), states))


def kept(found: Plan) -> set[str]:
    return {candidate.deployment.name for candidate in found.candidates}


def reasons(found: Plan) -> dict[str, str]:
    return {each.name: each.reason for each in found.dropped}


def refused(*deployments: Deployment, shape: RequestShape | None = None, **states: StateSnapshot) -> GatewayError:
    with pytest.raises(GatewayError) as refusal:
        planned(*deployments, shape=shape, **states)
    return refusal.value


# What a deployment cannot do


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"messages": IMAGE}, "no vision"),
        ({"tools": [TOOL]}, "no tools"),
        ({"response_format": {"type": "json_schema"}}, "no json_schema"),
        ({"messages": IMAGE, "tools": [TOOL]}, "no tools, vision"),
    ],
)
def test_a_deployment_without_the_capability_is_dropped(request_: dict[str, Any], reason: str) -> None:
    able = deployment("able", capabilities=frozenset(Capability))
    found = planned(deployment("unable", capabilities=BLIND), able, deployment("unknown"), shape=asking(**request_))
    assert kept(found) == {"able", "unknown"}
    assert reasons(found) == {"unable": reason}
    assert found.dropped[0].objection.cause is Cause.CAPABILITY
    assert found.dropped[0].objection.retry_after_seconds is None


def test_one_missing_capability_of_several_is_enough() -> None:
    sees = deployment("sees", capabilities=frozenset({Capability.VISION}))
    found = planned(sees, deployment("b"), shape=asking(messages=IMAGE, tools=[TOOL]))
    assert reasons(found) == {"sees": "no tools"}


def test_a_deployment_must_have_every_tag_that_is_wanted() -> None:
    both = deployment("both", tags=frozenset({"eu", "cheap", "more"}))
    one = deployment("one", tags=frozenset({"eu"}))
    found = planned(both, one, deployment("none"), shape=asking(tags=frozenset({"eu", "cheap"})))
    assert kept(found) == {"both"}
    assert reasons(found) == {"one": "not tagged cheap", "none": "not tagged cheap, eu"}


def test_tags_matter_only_to_those_who_want_them() -> None:
    assert kept(planned(deployment("a", tags=frozenset({"eu"})), deployment("b"))) == {"a", "b"}


@pytest.mark.parametrize(
    ("window", "max_tokens", "fits"),
    [(100, None, True), (99, None, False), (150, 50, True), (149, 50, False), (100, 0, True)],
)
def test_prompt_and_answer_must_fit_the_context_window(window: int, max_tokens: int | None, fits: bool) -> None:
    shape = asking(text="x" * 400, max_tokens=max_tokens)
    found = planned(deployment("small", context_window_tokens=window), deployment("b"), shape=shape)
    assert ("small" in kept(found)) is fits
    if not fits:
        assert reasons(found) == {"small": f"about {100 + (max_tokens or 0)} tokens, context window {window}"}


def test_a_prompt_that_must_fit_is_not_read() -> None:
    request = ChatRequest(b"no JSON, but 39 bytes long in any case.", "m", False, {"messages": b"not JSON"})
    assert kept(planned(deployment("d", context_window_tokens=9), shape=RequestShape(request))) == {"d"}
    with pytest.raises(ValueError, match="Expecting value"):
        planned(deployment("d", context_window_tokens=8), shape=RequestShape(request))


# What it cannot do now


@pytest.mark.parametrize(
    ("state", "cause", "reason", "wait"),
    [
        (StateSnapshot(drained=True), Cause.DRAINED, "drained by an operator", 30.0),
        (StateSnapshot(breaker_open_seconds=11.2), Cause.BREAKER_OPEN, "breaker open, 12 s left", 11.2),
        (StateSnapshot(breaker_open_seconds=0.01), Cause.BREAKER_OPEN, "breaker open, 1 s left", 0.01),
        (StateSnapshot(cooling_down_seconds=7), Cause.COOLING_DOWN, "cooling down, 7 s left", 7),
        (StateSnapshot(queue_full=True), Cause.QUEUE_FULL, "queue full", 1.0),
        (
            StateSnapshot(queue_full=True, cooling_down_seconds=3, breaker_open_seconds=2),
            Cause.BREAKER_OPEN,
            "breaker open, 2 s left",
            2,
        ),
    ],
)
def test_a_deployment_that_may_not_be_asked_now_is_dropped(
    state: StateSnapshot, cause: Cause, reason: str, wait: float
) -> None:
    found = planned(deployment("a"), deployment("b"), a=state)
    assert kept(found) == {"b"}
    assert found.candidates[0].reason == "the only one left"
    (dropped,) = found.dropped
    assert (dropped.name, dropped.public_model, dropped.reason) == ("a", "m", reason)
    assert (dropped.objection.cause, dropped.objection.retry_after_seconds) == (cause, wait)


def test_a_breaker_that_lets_a_probe_through_drops_nothing() -> None:
    assert kept(planned(deployment("a"), a=StateSnapshot(breaker_open_seconds=0.0, in_flight=500))) == {"a"}


def test_what_it_can_never_do_comes_before_what_it_cannot_do_now() -> None:
    """Waiting would not help."""
    blind, opened = deployment("blind", capabilities=BLIND), StateSnapshot(breaker_open_seconds=5)
    found = planned(blind, deployment("b"), shape=asking(messages=IMAGE), blind=opened)
    assert reasons(found) == {"blind": "no vision"}


# When nothing is left


def test_one_open_breaker_is_told_as_such() -> None:
    error = refused(deployment("a"), a=StateSnapshot(breaker_open_seconds=12))
    assert isinstance(error, CircuitOpen)
    assert (error.deployment, error.retry_after_seconds) == ("a", 12)


def test_several_unavailable_deployments_are_each_told_and_the_shortest_wait() -> None:
    error = refused(
        deployment("a"),
        deployment("b"),
        deployment("c"),
        a=StateSnapshot(breaker_open_seconds=12),
        b=StateSnapshot(cooling_down_seconds=4.5),
        c=StateSnapshot(drained=True),
    )
    assert isinstance(error, NoDeploymentAvailable)
    assert error.reasons == (
        ("a", "breaker open, 12 s left"),
        ("b", "cooling down, 5 s left"),
        ("c", "drained by an operator"),
    )
    assert error.retry_after_seconds == 4.5


def test_one_deployment_that_cools_down_is_no_open_breaker() -> None:
    error = refused(deployment("a"), a=StateSnapshot(cooling_down_seconds=4))
    assert isinstance(error, NoDeploymentAvailable)
    assert error.retry_after_seconds == 4


def test_who_cools_down_for_a_short_while_comes_after_everybody_else() -> None:
    """The one that is back first before the other."""
    soon, later = (StateSnapshot(cooling_down_seconds=left, may_be_waited_for=True) for left in (1, 2))
    away = StateSnapshot(cooling_down_seconds=60)
    deployments = [deployment(name) for name in "abcd"]
    found = planned(*deployments, a=later, b=soon, d=away)
    assert [(each.deployment.name, each.must_rest) for each in found.candidates] == [
        ("c", False),
        ("b", True),
        ("a", True),
    ]
    assert found.candidates[1].reason == "cooling down, 1 s left, waited for if nobody else answers"
    assert [each.name for each in found.dropped] == ["d"]


def test_who_can_be_waited_for_is_tried_when_nobody_else_is_there() -> None:
    found = planned(deployment("a"), a=StateSnapshot(cooling_down_seconds=1, may_be_waited_for=True))
    assert [each.must_rest for each in found.candidates] == [True]


def test_nobody_is_waited_for_who_could_not_serve_the_request() -> None:
    resting = StateSnapshot(cooling_down_seconds=1, may_be_waited_for=True)
    opened = StateSnapshot(breaker_open_seconds=9, cooling_down_seconds=1, may_be_waited_for=True)
    blind = deployment("blind", capabilities=BLIND)
    error = refused(blind, deployment("a"), shape=asking(messages=IMAGE), a=opened, blind=resting)
    assert isinstance(error, NoDeploymentAvailable)
    assert error.reasons == (("blind", "no vision"), ("a", "breaker open, 9 s left"))


def test_waiting_helps_as_long_as_one_of_them_could_serve_the_request() -> None:
    blind = deployment("blind", capabilities=BLIND)
    opened = StateSnapshot(breaker_open_seconds=9)
    error = refused(blind, deployment("a"), shape=asking(messages=IMAGE), a=opened, blind=opened)
    assert isinstance(error, NoDeploymentAvailable)
    assert error.reasons == (("blind", "no vision"), ("a", "breaker open, 9 s left"))


def test_a_request_that_no_deployment_can_serve_is_told_what_each_lacks() -> None:
    error = refused(
        deployment("a", capabilities=BLIND),
        deployment("b", context_window_tokens=1),
        shape=asking(messages=[{**IMAGE[0], "name": "n"}, {"role": "user", "content": "x" * 40}]),
    )
    assert isinstance(error, NoSuitableDeployment)
    assert error.reasons == (("a", "no vision"), ("b", "about 10 tokens, context window 1"))


def test_a_prompt_too_long_for_all_is_told_the_largest_window() -> None:
    windows = [deployment(str(window), context_window_tokens=window) for window in (10, 50, 20)]
    error = refused(*windows, shape=asking(text="x" * 400, max_tokens=7))
    assert isinstance(error, TokenLimitExceeded)
    assert (error.count, error.limit) == (107, 50)


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match=r"^Model 'gpt-5' not found in any provider$"):
        plan(asking("gpt-5"), around(route("a")))
