"""The whole plan: which models may stand behind one, each place once, and how it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.domain.catalog import AUTO, Capability, Catalog, FallbackKind, Strategy, one_provider
from proxy.domain.errors import CircuitOpen, ModelNotFound, NoDeploymentAvailable
from proxy.domain.routing import Candidate, Cause, ModelPolicy, Plan, StateSnapshot, plan, plan_after
from tests.catalogs import around, asking, deployment, route

GENERAL, CONTEXT_WINDOW, CONTENT_POLICY = FallbackKind
OPEN = StateSnapshot(breaker_open_seconds=5)


def candidates(found: Plan) -> list[tuple[str, str, bool]]:
    """Deployment, model to send, whether it is a fallback."""
    return [(each.deployment.name, each.model, each.is_fallback) for each in found.candidates]


def names(found: Plan) -> list[str]:
    return [each.deployment.name for each in found.candidates]


def with_fallbacks(**chains: tuple[str, ...]) -> Catalog:
    """m is served by a, n by b, o by c; chains are by kind, for m."""
    return Catalog(
        [route("a", name="m"), route("b", name="n"), route("c", name="o")],
        fallbacks={FallbackKind(kind): {"m": chain} for kind, chain in chains.items()},
    )


# Other models only where they were asked for or configured


def test_a_model_without_a_chain_has_nothing_behind_it() -> None:
    catalog = with_fallbacks(general=("n",), context_window=("n",), content_policy=("n",))
    assert candidates(plan(asking("n"), around(catalog))) == [("b", "m", False)]


def test_configured_fallbacks_come_after_all_of_the_models_own_deployments() -> None:
    catalog = Catalog(
        [route("a1", "a2", name="m", strategy=Strategy.PRIORITY), route("b1", "b2", name="n"), route("c", name="o")],
        fallbacks={GENERAL: {"m": ("n", "o")}},
    )
    found = plan(asking(), around(catalog))
    assert {*names(found)[:2]} == {"a1", "a2"}
    assert {*names(found)[2:4]} == {"b1", "b2"}
    assert names(found)[4] == "c"
    assert [each.is_fallback for each in found.candidates] == [False, False, True, True, True]
    assert [each.public_model for each in found.candidates] == ["m", "m", "n", "n", "o"]
    assert found.candidates[2].reason == "fallback of m; weight 1 of 2"
    assert found.candidates[4].reason == "fallback of m"


def test_fallbacks_of_fallbacks_are_not_followed() -> None:
    catalog = Catalog(
        [route("a"), route("b", name="n"), route("c", name="o")], fallbacks={GENERAL: {"m": ("n",), "n": ("o",)}}
    )
    assert names(plan(asking(), around(catalog))) == ["a", "b"]


def test_a_fallback_serves_when_all_own_deployments_are_dropped() -> None:
    found = plan(asking(), around(with_fallbacks(general=("n",)), {"a": OPEN}))
    assert candidates(found) == [("b", "m", True)]
    assert [(each.name, each.reason) for each in found.dropped] == [("a", "breaker open, 5 s left")]
    assert found.route.name == "m"


def test_fallbacks_are_filtered_too_and_all_reasons_are_told() -> None:
    catalog = with_fallbacks(general=("n", "o"))
    found = plan(asking(), around(catalog, {"b": OPEN}))
    assert (names(found), [each.name for each in found.dropped]) == (["a", "c"], ["b"])
    with pytest.raises(NoDeploymentAvailable) as refusal:
        plan(asking(), around(catalog, {"a": OPEN, "b": OPEN, "c": OPEN}))
    assert [name for name, _ in refusal.value.reasons] == ["a", "b", "c"]


def test_an_alias_may_have_a_chain_of_its_own() -> None:
    catalog = Catalog(
        [route("a"), route("b", name="n"), route("c", name="o")],
        aliases={"fast": "m"},
        fallbacks={GENERAL: {"fast": ("n",), "m": ("o",)}},
    )
    found = plan(asking("fast"), around(catalog))
    assert [(each.public_model, each.reason) for each in found.candidates] == [
        ("m", "the only deployment"),
        ("n", "fallback of fast"),
    ]
    assert (found.requested, found.route.name) == ("fast", "m")


def test_an_unknown_model_is_not_found_even_if_a_chain_fits_every_name() -> None:
    """Else a misspelt name would silently be another model."""
    catalog = Catalog([route("a")], fallbacks={GENERAL: {"*": ("m",)}})
    with pytest.raises(ModelNotFound, match="'n'"):
        plan(asking("n", models=["m"]), around(catalog))


# The prompt is too long


@pytest.mark.parametrize(("window", "expected"), [(100, ["small", "down"]), (99, ["large", "down"])])
def test_a_prompt_too_long_for_the_model_goes_to_the_chain_for_that(window: int, expected: list[str]) -> None:
    catalog = Catalog(
        [
            route(deployment("small", context_window_tokens=window)),
            route("large", name="long"),
            route("down", name="other"),
        ],
        fallbacks={CONTEXT_WINDOW: {"m": ("long",)}, GENERAL: {"m": ("other",)}},
    )
    found = plan(asking(text="x" * 400), around(catalog))
    assert names(found) == expected
    if window == 99:
        assert found.candidates[0].reason == "fallback for long prompts of m"
        assert found.candidates[0].is_fallback


def test_a_model_that_could_take_the_prompt_later_does_not_go_to_that_chain() -> None:
    catalog = Catalog(
        [route(deployment("small", context_window_tokens=9), "down"), route("large", name="long")],
        fallbacks={CONTEXT_WINDOW: {"m": ("long",)}},
    )
    with pytest.raises(NoDeploymentAvailable):
        plan(asking(text="x" * 400), around(catalog, {"down": OPEN}))


# After a failure


@pytest.mark.parametrize(("kind", "expected"), [(GENERAL, ["c"]), (CONTEXT_WINDOW, ["c", "b"]), (CONTENT_POLICY, [])])
def test_after_a_failure_the_chain_for_its_kind_is_next(kind: FallbackKind, expected: list[str]) -> None:
    surroundings = around(with_fallbacks(general=("o",), context_window=("o", "n")))
    before = plan(asking(), surroundings)
    after = plan_after(kind, before, before.candidates[:1], asking(), surroundings)
    assert names(after) == expected
    assert all(each.is_fallback for each in after.candidates)
    assert (after.requested, after.route) == (before.requested, before.route)


def test_what_was_attempted_is_not_tried_again() -> None:
    surroundings = around(with_fallbacks(general=("n",), content_policy=("n", "o", "m")))
    before = plan(asking(), surroundings)
    assert names(before) == ["a", "b"]
    after = plan_after(CONTENT_POLICY, before, before.candidates, asking(), surroundings)
    assert names(after) == ["c"]
    assert after.candidates[0].reason == "fallback for refused contents of m"


def test_after_a_failure_the_chain_is_filtered_as_it_stands_then() -> None:
    catalog = with_fallbacks(content_policy=("n",))
    before = plan(asking(), around(catalog))
    after = plan_after(CONTENT_POLICY, before, before.candidates, asking(), around(catalog, {"b": OPEN}))
    assert after.candidates == ()
    assert [each.name for each in after.dropped] == ["b"]


# The request's own models


def openrouter(name: str = "or", **members: Any) -> Any:
    return deployment(name, provider="OpenRouter", walks_models=True, **{"model": "*", **members})


def test_the_gateway_walks_the_requests_models_for_providers_that_do_not() -> None:
    catalog = with_fallbacks()
    found = plan(asking(models=["n", "nobody's", "m", "o", "n"]), around(catalog))
    assert candidates(found) == [("a", "m", False), ("b", "m", True), ("c", "m", True)]
    assert found.candidates[1].reason == "in the request's models"
    assert [(each.name, each.objection.cause) for each in found.dropped] == [("nobody's", Cause.UNKNOWN_MODEL)]


def test_openrouter_walks_them_itself() -> None:
    found = plan(asking("a/b", models=["a/b", "c/d", "e/f"]), around(one_provider("OpenRouter")))
    assert candidates(found) == [("OpenRouter", "a/b", False)]
    assert [(each.public_model, each.reason, each.objection.cause) for each in found.dropped] == [
        ("c/d", "OpenRouter walks the request's models itself", Cause.ASKED_ANYWAY),
        ("e/f", "OpenRouter walks the request's models itself", Cause.ASKED_ANYWAY),
    ]


def test_others_still_stand_behind_openrouter() -> None:
    catalog = Catalog([route(openrouter(), name="*"), route(openrouter(model="n"), "b", name="n")])
    found = plan(asking("x", models=["n"]), around(catalog))
    assert candidates(found) == [("or", "x", False), ("b", "m", True)]


def test_openrouter_is_asked_for_a_listed_model_if_it_is_not_asked_before() -> None:
    catalog = Catalog([route("a", name="m"), route(openrouter(), name="*")])
    assert candidates(plan(asking(models=["x", "y"]), around(catalog))) == [("a", "m", False), ("or", "x", True)]
    blind = openrouter(model="m", capabilities=frozenset[Capability]())
    catalog = Catalog([route(blind), route(openrouter(model="seer"), name="n")])
    picture = [{"role": "user", "content": [{"type": "image_url"}]}]
    found = plan(asking(models=["n"], messages=picture), around(catalog))
    assert candidates(found) == [("or", "seer", True)]


def test_a_provider_that_walks_them_does_so_for_itself_only() -> None:
    another = deployment("or2", provider="OpenRouter EU", walks_models=True)
    plain = deployment("or3", provider="OpenRouter")
    catalog = Catalog([route(openrouter()), route(another, name="n"), route(plain, name="o")])
    assert names(plan(asking(models=["n"]), around(catalog))) == ["or", "or2"]
    assert names(plan(asking("o", models=["m"]), around(catalog))) == ["or3", "or"]


def test_the_requests_models_come_before_configured_fallbacks() -> None:
    found = plan(asking(models=["o"]), around(with_fallbacks(general=("n",))))
    assert names(found) == ["a", "c", "b"]


# auto


def test_auto_goes_over_models_deployments_and_its_configured_fallbacks() -> None:
    policy = ModelPolicy(default_model="m", large_context_model="n", balanced_model="n")
    catalog = Catalog(
        [route("a1", "a2"), route("b", name="n"), route("c", name="o")], fallbacks={GENERAL: {AUTO: ("o",)}}
    )
    found = plan(asking(AUTO), around(catalog, policy=policy))
    assert {*names(found)[:2]} == {"a1", "a2"}
    assert names(found)[2:] == ["b", "c"]
    assert [each.is_fallback for each in found.candidates] == [False, False, True, True]
    assert found.candidates[0].reason == "auto: default model; weight 1 of 2"
    assert [each.reason for each in found.candidates[2:]] == ["fallback of m", "fallback of auto"]


def test_one_open_breaker_behind_all_of_autos_models_is_told_once() -> None:
    with pytest.raises(CircuitOpen) as refusal:
        plan(asking(AUTO), around(one_provider("OpenRouter"), {"OpenRouter": OPEN}))
    assert refusal.value.deployment == "OpenRouter"


# How it reads


def test_the_short_form_fits_a_header() -> None:
    surroundings = around(with_fallbacks(general=("n", "o")), {"b": StateSnapshot(breaker_open_seconds=11.5)})
    assert plan(asking(), surroundings).short() == "weighted: a > fallback c; dropped: b (breaker open, 12 s left)"
    assert plan(asking("n"), around(with_fallbacks())).short() == "weighted: b"


def test_the_short_form_of_no_candidates() -> None:
    surroundings = around(with_fallbacks())
    before = plan(asking(), surroundings)
    assert plan_after(GENERAL, before, before.candidates, asking(), surroundings).short() == "weighted: none"


def test_names_cannot_break_out_of_the_header() -> None:
    found = plan(asking(models=["a\r\nSet-Cookie: x", "ü\x00\U0001f600"]), around(with_fallbacks()))
    assert found.short() == "weighted: a; dropped: a??Set-Cookie: x (no such model), ??? (no such model)"


@pytest.mark.parametrize(("length", "is_cut"), [(1, False), (962, False), (963, True), (100_000, True)])
def test_the_short_form_stays_short(length: int, is_cut: bool) -> None:
    found = plan(asking(models=["x" * length]), around(with_fallbacks()))
    text = found.short()
    assert len(text) == (1000 if is_cut else 38 + length)
    assert text.endswith("...") is is_cut


def test_a_fallback_is_asked_before_a_deployment_is_waited_for() -> None:
    catalog = Catalog(
        [route("a"), route("b", name="n"), route("c", name="long")],
        fallbacks={GENERAL: {"m": ("n",)}, FallbackKind.CONTEXT_WINDOW: {"m": ("long",)}},
    )
    found = plan(asking(), around(catalog, {"a": StateSnapshot(cooling_down_seconds=1, may_be_waited_for=True)}))
    assert [(each.deployment.name, each.is_fallback) for each in found.candidates] == [("b", True), ("a", False)]


def test_the_long_form_is_json_with_everything() -> None:
    catalog = Catalog(
        [route(deployment("a", provider="p", model="up"), strategy=Strategy.COST), route("b", name="n")],
        fallbacks={GENERAL: {"m": ("n",)}},
    )
    found = plan(asking(models=["zz"]), around(catalog, {"b": StateSnapshot(cooling_down_seconds=2.5)}))
    assert json.loads(json.dumps(found.explain())) == {
        "requested": "m",
        "model": "m",
        "strategy": "cost",
        "candidates": [
            {
                "deployment": "a",
                "provider": "p",
                "model": "up",
                "public_model": "m",
                "reason": "the only deployment",
                "is_fallback": False,
            }
        ],
        "dropped": [
            {
                "deployment": None,
                "provider": None,
                "model": None,
                "public_model": "zz",
                "reason": "no such model",
                "cause": "unknown_model",
                "retry_after_seconds": None,
            },
            {
                "deployment": "b",
                "provider": "b",
                "model": "m",
                "public_model": "n",
                "reason": "cooling down, 3 s left",
                "cause": "cooling_down",
                "retry_after_seconds": 2.5,
            },
        ],
    }


def test_a_candidate_knows_what_to_send() -> None:
    found = plan(asking("openrouter/x"), around(route(openrouter(), name="openrouter/*")))
    assert found.candidates == (Candidate(openrouter(model="x"), "openrouter/x", "the only deployment"),)
