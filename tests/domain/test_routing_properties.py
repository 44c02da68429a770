"""What every plan keeps to, whatever the catalog, the states and the request."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.catalog import AUTO, Capability, Catalog, Deployment, FallbackKind, ModelRoute, Strategy
from proxy.domain.errors import (
    CircuitOpen,
    GatewayError,
    NoDeploymentAvailable,
    NoSuitableDeployment,
    TokenLimitExceeded,
)
from proxy.domain.routing import ModelPolicy, Plan, StateSnapshot, Surroundings, plan, plan_after
from tests.catalogs import asking

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

MODELS = ("m", "n", "o")
TAGS = ("eu", "cheap")
Situation = tuple[dict[str, Any], Surroundings]

NAMES = "abcdef"

snapshots = st.sampled_from(
    [
        StateSnapshot(),
        StateSnapshot(in_flight=9, latency_ewma_seconds=2.5, requests_this_minute=50, tokens_this_minute=5000),
        StateSnapshot(in_flight=1, latency_ewma_seconds=0.1, requests_this_minute=1, tokens_this_minute=100),
        StateSnapshot(queue_full=True, in_flight=50),
        StateSnapshot(breaker_open_seconds=0.001, cooling_down_seconds=60),
        StateSnapshot(cooling_down_seconds=7),
        StateSnapshot(drained=True),
    ]
)
kinds = st.sampled_from(
    [
        Deployment("x", "p", "x"),
        Deployment("x", "p", "*", weight=3, walks_models=True),
        Deployment("x", "q", "y", weight=0, order=1),
        Deployment("x", "q", "y", weight=0.5, rpm=10, tpm=1000, tags=frozenset({"eu"})),
        Deployment("x", "q", "*", order=2, rpm=100, tags=frozenset(TAGS), capabilities=frozenset()),
        Deployment("x", "p", "x", capabilities=frozenset({Capability.TOOLS}), context_window_tokens=2000),
        Deployment("x", "p", "x", tags=frozenset({"cheap"}), context_window_tokens=100),
        Deployment("x", "q", "z", order=-1, tags=frozenset(TAGS), walks_models=True),
    ]
)
some_deployments = st.lists(
    st.builds(lambda name, kind: replace(kind, name=name), st.sampled_from(NAMES), kinds),
    min_size=1,
    max_size=4,
    unique_by=lambda each: each.name,
).map(tuple)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    routes = [
        ModelRoute(name, draw(some_deployments), draw(st.sampled_from(Strategy)), sticky=draw(st.booleans()))
        for name in (*MODELS, "*")
    ]
    chains = st.dictionaries(
        st.sampled_from([*MODELS, "alias", AUTO]), st.lists(st.sampled_from(MODELS), max_size=3).map(tuple), max_size=2
    )
    fallbacks = {kind: draw(chains) for kind in FallbackKind}
    return Catalog(routes, {"alias": "m"}, fallbacks)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    members: dict[str, Any] = {"model": draw(st.sampled_from([*MODELS, "alias", AUTO, "zz"]))}
    members["text"] = "x" * draw(st.sampled_from([0, 400, 40_000]))
    members["tags"] = draw(st.frozensets(st.sampled_from(TAGS), max_size=1))
    for name, values in (
        ("models", st.lists(st.sampled_from([*MODELS, "zz", AUTO]), max_size=3)),
        ("tools", st.just([{"type": "function"}])),
        ("user", st.text(max_size=3)),
        ("max_tokens", st.integers(1, 2000)),
    ):
        if draw(st.booleans()):
            members[name] = draw(values)
    return members


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    states = {name: draw(snapshots) for name in NAMES}
    policy = ModelPolicy(*MODELS, large_context_threshold_tokens=50)
    seed = draw(st.integers(0, 2**32))
    surroundings = Surroundings(
        draw(catalogs()),
        policy,
        lambda each: states[each.name],
        dict,
        random.Random(seed).random,  # noqa: S311
    )
    return draw(requests()), surroundings


def asked_or_configured(members: dict[str, Any], around: Surroundings) -> set[str]:
    """All models that the request may be served by."""
    model, listed = members["model"], members.get("models", [])
    kinds = (FallbackKind.GENERAL, FallbackKind.CONTEXT_WINDOW)
    chosen = MODELS if model == AUTO else (around.catalog.aliases.get(model, model),)
    names = {model, *chosen}
    configured = {each for kind in kinds for name in names for each in around.catalog.fallbacks_of(kind, name)}
    return {*chosen, *configured, *(name for name in listed if name != AUTO)}


def places(found: Plan) -> list[tuple[str, str]]:
    """Every deployment of the plan with the model that it is, or would be, sent."""
    kept = [each.deployment for each in found.candidates]
    dropped = [each.deployment for each in found.dropped if each.deployment is not None]
    return [(each.name, each.model) for each in (*kept, *dropped)]


def attempted(members: dict[str, Any], around: Surroundings) -> Plan | GatewayError:
    """The plan, or what is said instead. No name is unknown: the wildcard takes every one."""
    try:
        return plan(asking(**members), around)
    except (CircuitOpen, NoDeploymentAvailable, NoSuitableDeployment, TokenLimitExceeded) as refusal:
        return refusal


@_property
@given(situations())
def test_nothing_is_dropped_silently_and_nothing_is_there_twice(situation: Situation) -> None:
    members, around = situation
    found = attempted(members, around)
    if not isinstance(found, Plan):
        return
    allowed = [around.catalog.resolve(name) for name in asked_or_configured(members, around)]
    offered = {(each.name, each.model) for route in allowed if route for each in route.deployments}
    own = {(each.name, each.model) for each in found.route.deployments}
    assert len(places(found)) == len(set(places(found)))
    assert own <= set(places(found)) <= offered
    assert all([*(each.reason for each in found.candidates), *(each.reason for each in found.dropped)])
    assert len(found.short()) <= 1000


@_property
@given(situations())
def test_other_models_only_where_asked_for_or_configured_and_marked(situation: Situation) -> None:
    members, around = situation
    found = attempted(members, around)
    if not isinstance(found, Plan):
        return
    assert found.candidates
    assert {each.public_model for each in found.candidates} <= asked_or_configured(members, around)
    assert {each.public_model for each in found.candidates if not each.is_fallback} <= {found.route.name}
    marks = [each.is_fallback for each in found.candidates]
    assert marks == sorted(marks)


@_property
@given(situations())
def test_nobody_is_asked_who_must_not_be(situation: Situation) -> None:
    members, around = situation
    found = attempted(members, around)
    if not isinstance(found, Plan):
        return
    for each in found.candidates:
        state = around.states(each.deployment)
        assert (state.drained, state.queue_full) == (False, False)
        assert (state.breaker_open_seconds, state.cooling_down_seconds) == (0, 0)
        assert members["tags"] <= each.deployment.tags
        if "tools" in members:
            assert each.deployment.capabilities is None or Capability.TOOLS in each.deployment.capabilities


@_property
@given(situations())
def test_a_refusal_names_a_wait_or_what_is_lacking(situation: Situation) -> None:
    refusal = attempted(*situation)
    if isinstance(refusal, CircuitOpen | NoDeploymentAvailable):
        assert 0 < refusal.retry_after_seconds <= 60
    elif isinstance(refusal, NoSuitableDeployment):
        assert refusal.reasons
    elif isinstance(refusal, TokenLimitExceeded):
        assert refusal.count > refusal.limit


@_property
@given(situations(), st.sampled_from(FallbackKind), st.integers(0, 5))
def test_what_follows_a_failure_was_not_attempted_and_is_configured(
    situation: Situation, kind: FallbackKind, tries: int
) -> None:
    members, around = situation
    before = attempted(members, around)
    if not isinstance(before, Plan):
        return
    after = plan_after(kind, before, before.candidates[:tries], asking(**members), around)
    tried = {(each.deployment.name, each.model) for each in before.candidates[:tries]}
    chain = around.catalog.fallbacks_of(kind, before.requested, before.route.name)
    for each in after.candidates:
        assert each.is_fallback
        assert each.public_model in chain
        assert (each.deployment.name, each.model) not in tried


@_property
@given(situations())
def test_a_session_is_planned_the_same_each_time(situation: Situation) -> None:
    members, around = situation
    catalog = around.catalog
    sticky = Catalog([replace(route, sticky=True) for route in catalog.routes], catalog.aliases, catalog.fallbacks)
    members, around = {**members, "user": "u"}, around._replace(catalog=sticky)
    first, second = attempted(members, around), attempted(members, around)
    if isinstance(first, Plan):
        assert first == second
    else:
        assert str(first) == str(second)
