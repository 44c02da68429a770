"""Model choice and fallback of `auto`, on the exact boundaries."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.domain.catalog import AUTO, Catalog, one_provider
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import AllProvidersFailed, ModelNotFound, TokenLimitExceeded
from proxy.domain.routing import ModelPolicy, Plan, RequestShape, fallback_model, plan, select_model
from tests.catalogs import around, asking, route

POLICY = ModelPolicy()
DEFAULT, LARGE, BALANCED = "z-ai/glm-4.6", "moonshotai/Kimi-K2-Instruct-0905", "deepseek-ai/DeepSeek-V3.1-Terminus"
OWN = ModelPolicy("d", "l", "b", large_context_threshold_tokens=5, max_prompt_tokens=9)


def planned(model: str, characters: int = 0, policy: ModelPolicy = POLICY, **members: Any) -> Plan:
    """In a gateway without configuration."""
    return plan(asking(model, "x" * characters, **members), around(one_provider("OpenRouter"), policy=policy))


# ModelSelection


def test_defaults() -> None:
    assert POLICY.default_model == DEFAULT
    assert POLICY.large_context_model == LARGE
    assert POLICY.balanced_model == BALANCED
    assert POLICY.large_context_threshold_tokens == 10_000
    assert POLICY.max_prompt_tokens == 200_000
    assert POLICY.chain == (LARGE, BALANCED, DEFAULT)


@pytest.mark.parametrize(
    ("tokens", "model"),
    [(0, DEFAULT), (9_999, DEFAULT), (10_000, DEFAULT), (10_001, LARGE), (199_999, LARGE), (200_000, LARGE)],
)
def test_auto_chooses_by_estimated_tokens(tokens: int, model: str) -> None:
    chosen = select_model(AUTO, tokens, POLICY)
    assert chosen.model == model


@pytest.mark.parametrize("tokens", [200_001, 10**9])
def test_auto_refuses_more_than_any_model_takes(tokens: int) -> None:
    with pytest.raises(TokenLimitExceeded, match=rf"^Token count {tokens} exceeds limit 200000$") as refusal:
        select_model(AUTO, tokens, POLICY)
    assert (refusal.value.count, refusal.value.limit) == (tokens, 200_000)


@pytest.mark.parametrize("name", [DEFAULT, "gpt-4o", "AUTO", "Auto", " auto", "auto/auto", "openrouter/auto", " a/b "])
@pytest.mark.parametrize("tokens", [0, 10_001, 200_001])
def test_a_named_model_wins_verbatim_whatever_the_size(name: str, tokens: int) -> None:
    assert select_model(name, tokens, POLICY).model == name


@pytest.mark.parametrize(("tokens", "model"), [(5, "d"), (6, "l"), (9, "l")])
def test_models_and_thresholds_are_configurable(tokens: int, model: str) -> None:
    assert select_model(AUTO, tokens, OWN).model == model


def test_the_configured_limit_is_the_one_that_refuses() -> None:
    with pytest.raises(TokenLimitExceeded, match=r"^Token count 10 exceeds limit 9$"):
        select_model(AUTO, 10, OWN)


# ProviderFallback


@pytest.mark.parametrize(
    ("failed", "attempted", "following"),
    [
        (LARGE, [LARGE], BALANCED),
        (BALANCED, [BALANCED], DEFAULT),
        (DEFAULT, [DEFAULT], LARGE),
        (LARGE, [LARGE, BALANCED], DEFAULT),
        (BALANCED, [DEFAULT, BALANCED], LARGE),
        (DEFAULT, [LARGE, DEFAULT], BALANCED),
        (LARGE, [DEFAULT, LARGE], BALANCED),
        (BALANCED, [BALANCED, "another/model"], DEFAULT),
    ],
)
def test_fallback_is_the_next_of_the_chain_in_a_circle_not_yet_attempted(
    failed: str, attempted: list[str], following: str
) -> None:
    assert fallback_model(failed, attempted, POLICY) == following


@pytest.mark.parametrize("failed", [LARGE, BALANCED, DEFAULT])
def test_a_failed_model_is_never_its_own_fallback(failed: str) -> None:
    assert fallback_model(failed, [], POLICY) != failed
    with pytest.raises(AllProvidersFailed):
        fallback_model(failed, {LARGE, BALANCED, DEFAULT} - {failed}, POLICY)


def test_all_attempted_names_them_in_order() -> None:
    with pytest.raises(AllProvidersFailed) as failure:
        fallback_model(BALANCED, [DEFAULT, LARGE, BALANCED], POLICY)
    assert str(failure.value) == f"All providers failed: {DEFAULT}, {LARGE}, {BALANCED}"
    assert failure.value.attempted == (DEFAULT, LARGE, BALANCED)


@pytest.mark.parametrize("attempted", [[], ["gpt-4o"]])
def test_a_failed_model_outside_the_chain_has_no_fallback(attempted: list[str]) -> None:
    with pytest.raises(AllProvidersFailed, match=r"^All providers failed: gpt-4o$"):
        fallback_model("gpt-4o", attempted, POLICY)


def test_a_chain_of_one_model_has_no_fallback() -> None:
    with pytest.raises(AllProvidersFailed, match=r"^All providers failed: a$"):
        fallback_model("a", ["a"], ModelPolicy("a", "a", "a"))


# The whole plan


def models(planned: Plan) -> list[str]:
    return [candidate.model for candidate in planned.candidates]


def test_a_named_model_is_never_replaced_by_another() -> None:
    assert models(planned(DEFAULT)) == [DEFAULT]
    assert models(planned("gpt-4o", 4 * 200_001)) == ["gpt-4o"]


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        (0, [DEFAULT, LARGE, BALANCED]),
        (40_003, [DEFAULT, LARGE, BALANCED]),
        (40_004, [LARGE, BALANCED, DEFAULT]),
        (800_003, [LARGE, BALANCED, DEFAULT]),
    ],
)
def test_auto_stands_on_the_whole_chain_each_model_once(characters: int, expected: list[str]) -> None:
    """Four characters to a token, rounded down: 40,003 are 10,000 tokens and 800,003 are 200,000."""
    found = planned(AUTO, characters)
    assert models(found) == expected
    assert [candidate.is_fallback for candidate in found.candidates] == [False, True, True]
    assert found.requested == AUTO
    assert found.route.name == expected[0]


def test_every_candidate_says_why_it_stands_there() -> None:
    first, second, third = planned(AUTO).candidates
    assert first.reason == "auto: default model"
    assert second.reason == f"fallback of {DEFAULT}"
    assert third.reason == f"fallback of {LARGE}"
    assert "10001" in planned(AUTO, 40_004).candidates[0].reason


def test_auto_refuses_a_prompt_of_200_001_tokens() -> None:
    with pytest.raises(TokenLimitExceeded, match=r"^Token count 200001 exceeds limit 200000$"):
        planned(AUTO, 800_004)


def test_a_model_configured_twice_is_tried_once() -> None:
    policy = ModelPolicy(default_model="a", large_context_model="b", balanced_model="a")
    assert models(planned(AUTO, policy=policy)) == ["a", "b"]


def test_a_named_model_needs_no_reading_of_the_messages() -> None:
    request = ChatRequest(body=b"{}", model="gpt-4o", stream=False, members={"messages": b"not JSON"})
    assert len(plan(RequestShape(request), around(one_provider("OpenRouter"))).candidates) == 1


def test_auto_passes_over_models_that_the_catalog_does_not_have() -> None:
    found = plan(asking(AUTO), around(route("here", name=BALANCED)))
    assert [candidate.public_model for candidate in found.candidates] == [BALANCED]
    assert [(each.deployment, each.public_model, each.reason) for each in found.dropped] == [
        (None, DEFAULT, "no such model"),
        (None, LARGE, "no such model"),
    ]


def test_auto_with_none_of_its_models_in_the_catalog_is_not_found() -> None:
    with pytest.raises(ModelNotFound, match="'auto'"):
        plan(asking(AUTO), around(Catalog([route("here", name="another")])))
