"""What a catalog resolves, and what it refuses to be made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.catalog import AUTO, Catalog, FallbackKind, NamePatterns, one_provider
from proxy.domain.errors import InvalidValue
from tests.catalogs import deployment, route

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

GENERAL, CONTEXT_WINDOW = FallbackKind.GENERAL, FallbackKind.CONTEXT_WINDOW


def resolved(catalog: Catalog, model: str) -> tuple[str, list[str]] | None:
    """The route's name and the models that its deployments are sent."""
    found = catalog.resolve(model)
    return None if found is None else (found.name, [each.model for each in found.deployments])


# Resolving


def test_an_exact_name_comes_before_an_alias_and_a_pattern() -> None:
    catalog = Catalog(
        [
            route(deployment("exact", model="one"), name="a/b"),
            route(deployment("wild", model="*"), name="*"),
            route(deployment("narrow", model="*"), name="a/*"),
        ],
        aliases={"a/c": "a/b", "a/d": "elsewhere"},
    )
    assert resolved(catalog, "a/b") == ("a/b", ["one"])
    assert resolved(catalog, "a/c") == ("a/b", ["one"])
    assert resolved(catalog, "a/d") == ("elsewhere", ["elsewhere"])
    assert resolved(catalog, "a/e") == ("a/e", ["e"])
    assert resolved(catalog, "b/e") == ("b/e", ["b/e"])


def test_aliases_lead_on_to_aliases() -> None:
    catalog = Catalog([route("x", name="real")], aliases={"one": "two", "two": "three", "three": "real"})
    assert resolved(catalog, "one") == ("real", ["m"])


def test_an_alias_may_lead_to_a_name_that_a_pattern_fits() -> None:
    catalog = Catalog([route(deployment("or", model="*"), name="openrouter/*")], aliases={"fast": "openrouter/a/b"})
    assert resolved(catalog, "fast") == ("openrouter/a/b", ["a/b"])


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("openrouter/z-ai/glm-4.6", "z-ai/glm-4.6"),
        ("openrouter/x", "x"),
        ("openrouter/*", "*"),
        ("openrouter/", None),  # the star stands for something
        ("openrouter", None),
        ("OpenRouter/x", None),
        ("an openrouter/x", None),
    ],
)
def test_what_a_pattern_fits_and_what_is_sent(model: str, sent: str | None) -> None:
    catalog = Catalog([route(deployment("or", model="*"), name="openrouter/*")])
    assert resolved(catalog, model) == (None if sent is None else (model, [sent]))


@pytest.mark.parametrize(
    ("template", "sent"), [("*", "b"), ("z-ai/*", "z-ai/b"), ("*:free", "b:free"), ("fixed", "fixed")]
)
def test_the_deployments_star_is_what_the_patterns_matched(template: str, sent: str) -> None:
    assert resolved(Catalog([route(deployment("d", model=template), name="a/*")]), "a/b") == ("a/b", [sent])


@pytest.mark.parametrize(
    ("model", "pattern"),
    [
        ("a/b/c", "a/b/*"),
        ("a/c", "a/*"),
        ("c", "*"),
        ("a/b", "a/*"),  # not a/b/*
        ("c:free", "*:free"),
        ("a/b:free", "*:free"),  # more text beside the star than a/*
        ("abc", "a*c"),
        ("acc", "a*c"),
        ("ac", "*"),
    ],
)
def test_the_most_specific_pattern_wins_whatever_the_order(model: str, pattern: str) -> None:
    patterns = ["*", "a/*", "a/b/*", "*:free", "a*c"]
    for order in (patterns, patterns[::-1]):
        catalog = Catalog([route(deployment(name, model="*"), name=name) for name in order])
        found = catalog.resolve(model)
        assert found is not None
        assert [each.name for each in found.deployments] == [pattern]


def test_of_equally_long_patterns_the_one_with_the_longer_beginning_wins() -> None:
    for order in (["ab*", "*bc", "a*c"], ["*bc", "a*c", "ab*"]):
        assert NamePatterns(order).match("ab-bc") == ("ab*", "-bc")


@_property
@given(st.text(), st.text(), st.text(min_size=1))
def test_a_pattern_fits_exactly_what_it_is_filled_with(before: str, after: str, matched: str) -> None:
    pattern = before.replace("*", "") + "*" + after.replace("*", "")
    found = NamePatterns([pattern]).match(pattern.replace("*", matched))
    assert found == (pattern, matched)


def test_no_name_fits_no_route() -> None:
    assert Catalog([route("a", name="m")]).resolve("n") is None
    assert Catalog([]).resolve("m") is None


def test_auto_is_no_model_of_any_catalog() -> None:
    assert one_provider("OpenRouter").resolve(AUTO) is None


def test_without_configuration_every_name_goes_to_the_provider_as_it_is() -> None:
    for name in ("z-ai/glm-4.6", "x", "*", "a*b", "ü", "\ud800"):
        assert resolved(one_provider("OpenRouter"), name) == (name, [name])


def test_a_resolved_name_is_found_again_without_work() -> None:
    catalog = one_provider("OpenRouter")
    assert catalog.resolve("a") is catalog.resolve("a")


def test_memory_is_bounded_however_many_and_long_the_names() -> None:
    catalog = one_provider("OpenRouter")
    first = catalog.resolve("0")
    long = "x" * 257
    assert catalog.resolve(long) is not catalog.resolve(long)
    for number in range(1, 1025):
        catalog.resolve(str(number))
    assert catalog.resolve("0") is not first
    assert catalog.resolve("0") == first


# Fallbacks


def test_a_chain_is_found_by_any_of_the_models_names_the_first_counts() -> None:
    catalog = Catalog(
        [route("a"), route("b", name="n"), route("c", name="o")],
        aliases={"alias": "m"},
        fallbacks={GENERAL: {"alias": ("n",), "m": ("o", "n")}, CONTEXT_WINDOW: {"m": ("o",)}},
    )
    assert catalog.fallbacks_of(GENERAL, "alias", "m") == ("n",)
    assert catalog.fallbacks_of(GENERAL, "m", "m") == ("o", "n")
    assert catalog.fallbacks_of(CONTEXT_WINDOW, "alias", "m") == ("o",)
    assert catalog.fallbacks_of(FallbackKind.CONTENT_POLICY, "m") == ()
    assert catalog.fallbacks_of(GENERAL, "n") == ()


def test_a_chain_may_be_for_all_names_that_fit() -> None:
    catalog = Catalog(
        [route("a", name="*"), route("b", name="own"), route("c", name="own/two")],
        fallbacks={GENERAL: {"*": ("own",), "own/*": ("own/two",), "own/three": ()}},
    )
    assert catalog.fallbacks_of(GENERAL, "anything") == ("own",)
    assert catalog.fallbacks_of(GENERAL, "own/one") == ("own/two",)
    assert catalog.fallbacks_of(GENERAL, "own/three") == ()


def test_auto_may_have_a_chain() -> None:
    assert Catalog([route("a")], fallbacks={GENERAL: {AUTO: ("m",)}}).fallbacks_of(GENERAL, AUTO) == ("m",)


# Refusals


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"name": " "}, "The name of a deployment cannot be empty"),
        ({"provider": ""}, "The provider of a deployment cannot be empty"),
        ({"model": ""}, "The model of a deployment cannot be empty"),
        ({"weight": -0.1}, "The weight of deployment 'd' must be a number from 0 up"),
        ({"weight": float("nan")}, "The weight of deployment 'd' must be a number from 0 up"),
        ({"weight": float("inf")}, "The weight of deployment 'd' must be a number from 0 up"),
        ({"rpm": 0}, "rpm of deployment 'd' must be greater than zero"),
        ({"tpm": -1}, "tpm of deployment 'd' must be greater than zero"),
        ({"context_window_tokens": 0}, "context_window_tokens of deployment 'd' must be greater than zero"),
    ],
)
def test_a_deployment_refuses_what_cannot_be(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        deployment(**{"name": "d", **members})
    assert str(refusal.value) == message


def test_the_smallest_that_a_deployment_takes() -> None:
    assert deployment("d", weight=0, rpm=1, tpm=1, context_window_tokens=1).weight == 0


@pytest.mark.parametrize(
    ("deployments", "members", "message"),
    [
        (["a"], {"name": ""}, "Model name cannot be null or empty"),
        (["a"], {"name": "a/*/*"}, "Model 'a/*/*' may have one '*' only"),
        ([], {}, "Model 'm' has no deployments"),
        (["a", "b", "a"], {}, "Model 'm' has two deployments named 'a'"),
        (["a"], {"hedge_after": 0}, "hedge_after of model 'm' must be greater than zero"),
        (["a"], {"hedge_after": float("nan")}, "hedge_after of model 'm' must be greater than zero"),
    ],
)
def test_a_route_refuses_what_cannot_be(deployments: list[str], members: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        route(*deployments, **members)
    assert str(refusal.value) == message


def test_a_route_may_hedge_at_its_p95() -> None:
    assert route("a", hedge_after="p95").hedge_after == "p95"


@pytest.mark.parametrize(
    ("names", "aliases", "fallbacks", "message"),
    [
        (["m", "n", "m"], {}, {}, "Model 'm' is in the catalog twice"),
        (["*", "*"], {}, {}, "Model '*' is in the catalog twice"),
        ([AUTO], {}, {}, "The model name 'auto' is reserved: it lets the gateway choose"),
        (["m"], {AUTO: "m"}, {}, "The model name 'auto' is reserved: it lets the gateway choose"),
        (["m", "n"], {"m": "n"}, {}, "'m' is both a model and an alias"),
        (["m"], {"a": "b", "b": "n"}, {}, "Alias 'a' leads to 'n', which is no model of the catalog"),
        (["*"], {"a": AUTO}, {}, "Alias 'a' leads to 'auto', which is no model of the catalog"),
        (["m"], {"a": "a"}, {}, "Alias 'a' leads in a circle: a -> a"),
        (["m"], {"a": "b", "b": "c", "c": "b"}, {}, "Alias 'a' leads in a circle: a -> b -> c -> b"),
        (["m"], {}, {"n": ("m",)}, "Fallbacks (general) are given for 'n', which is no model of the catalog"),
        (["m"], {}, {"m": ("n",)}, "Fallback 'n' of 'm' (general) is no model of the catalog"),
        (["*"], {}, {"m": (AUTO,)}, "Fallback 'auto' of 'm' (general) is no model of the catalog"),
    ],
)
def test_a_catalog_refuses_names_that_lead_nowhere(
    names: list[str], aliases: Mapping[str, str], fallbacks: Mapping[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(InvalidValue) as refusal:
        Catalog([route("d", name=name) for name in names], aliases, {GENERAL: fallbacks})
    assert str(refusal.value) == message
