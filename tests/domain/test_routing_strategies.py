"""In which order deployments are tried, and what is said of each."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from proxy.domain.catalog import Deployment, Strategy
from proxy.domain.pricing import ModelPricing
from proxy.domain.routing import Candidate, RequestShape, StateSnapshot, plan
from proxy.domain.routing.strategies import DEFAULT_OUTPUT_TOKENS
from proxy.domain.values import ModelName
from tests.catalogs import around, asking, deployment, route


def planned(
    strategy: Strategy,
    *deployments: Deployment,
    shape: RequestShape | None = None,
    prices: dict[str, ModelPricing] | None = None,
    draws: list[float] | None = None,
    sticky: bool = True,
    **states: StateSnapshot,
) -> tuple[Candidate, ...]:
    """`draws` are what chance says, in turn; without them a draw decides nothing that these tests look at."""
    chance = iter(draws or [0.5] * 1000)
    surroundings = around(
        route(*deployments, strategy=strategy, sticky=sticky), states, prices=prices, chance=lambda: next(chance)
    )
    return plan(shape or asking(), surroundings).candidates


def order(candidates: tuple[Candidate, ...]) -> list[str]:
    return [each.deployment.name for each in candidates]


def reasons(candidates: tuple[Candidate, ...]) -> dict[str, str]:
    return {each.deployment.name: each.reason for each in candidates}


def price(input_usd: str, output_usd: str, fee: str | None = None) -> ModelPricing:
    """Per 1M tokens."""
    return ModelPricing(
        ModelName("m"),
        "p",
        Decimal(input_usd),
        Decimal(output_usd),
        None,
        datetime.now(UTC),
        request_fee_usd=None if fee is None else Decimal(fee),
    )


@pytest.mark.parametrize("strategy", Strategy)
def test_a_single_deployment_is_the_only_one_whatever_the_strategy(strategy: Strategy) -> None:
    def no_chance() -> float:
        raise AssertionError("there is nothing to draw")

    surroundings = around(route("a", strategy=strategy), chance=no_chance)
    (candidate,) = plan(asking(user="u"), surroundings).candidates
    assert (candidate.deployment.name, candidate.reason) == ("a", "the only deployment")
    assert (candidate.model, candidate.public_model, candidate.is_fallback) == ("m", "m", False)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("members", [{}, {"user": "u"}])
def test_weight_0_is_a_last_resort_in_every_strategy(strategy: Strategy, members: dict[str, Any]) -> None:
    found = planned(
        strategy,
        deployment("resort", weight=0, order=-1, price=price("0", "0")),
        deployment("busy", order=9, rpm=1, price=price("9", "9")),
        shape=asking(**members),
        busy=StateSnapshot(in_flight=99, latency_ewma_seconds=99, requests_this_minute=99),
    )
    assert order(found) == ["busy", "resort"]
    assert found[1].reason == "weight 0, last resort"


@pytest.mark.parametrize("strategy", Strategy)
def test_weight_0_alone_is_still_an_order(strategy: Strategy) -> None:
    found = planned(strategy, deployment("a", weight=0), deployment("b", weight=0), draws=[0.9, 0.1] * 9)
    assert order(found) == ["b", "a"]


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_extremes_of_chance_are_an_order_too(strategy: Strategy, draw: float) -> None:
    assert len(planned(strategy, deployment("a"), deployment("b"), deployment("c"), draws=[draw] * 99)) == 3


# weighted


def test_weighted_draws_by_weight() -> None:
    """Times -ln(1 - draw) / weight: 0.69 / 3 comes before 0.36 / 1."""
    assert order(planned(Strategy.WEIGHTED, deployment("a", weight=3), deployment("b"), draws=[0.5, 0.3])) == ["a", "b"]
    assert order(planned(Strategy.WEIGHTED, deployment("a"), deployment("b"), draws=[0.5, 0.3])) == ["b", "a"]


def test_weighted_names_the_share() -> None:
    found = planned(
        Strategy.WEIGHTED, deployment("a", weight=3), deployment("b", weight=0.5), deployment("c", weight=0)
    )
    assert reasons(found) == {"a": "weight 3 of 3.5", "b": "weight 0.5 of 3.5", "c": "weight 0, last resort"}


# priority


def test_priority_goes_by_order_and_draws_among_equals() -> None:
    deployments = [
        deployment("second", order=2),
        deployment("first", order=1),
        deployment("first too", order=1, weight=3),
        deployment("zeroth", order=0, weight=0.01),
    ]
    found = planned(Strategy.PRIORITY, *deployments, draws=[0.0, 0.3, 0.5, 0.999])
    assert order(found) == ["zeroth", "first too", "first", "second"]
    found = planned(Strategy.PRIORITY, *deployments, draws=[0.0, 0.1, 0.5, 0.999])
    assert order(found) == ["zeroth", "first", "first too", "second"]
    assert reasons(found)["second"] == "order 2"


# least-busy


@pytest.mark.parametrize(
    ("in_flight", "first"),
    [((0, 1), "a"), ((1, 1), "a"), ((3, 1), "b"), ((3, 2), "a"), ((2, 1), "drawn"), ((0, 0), "drawn")],
)
def test_least_busy_is_fewest_in_flight_for_its_weight(in_flight: tuple[int, int], first: str) -> None:
    a, b = (StateSnapshot(in_flight=count) for count in in_flight)
    for lucky, draws in (("a", [0.1, 0.9]), ("b", [0.9, 0.1])):
        found = planned(Strategy.LEAST_BUSY, deployment("a", weight=2), deployment("b"), draws=draws, a=a, b=b)
        assert order(found)[0] == (lucky if first == "drawn" else first)
        assert reasons(found)["a"] == f"{in_flight[0]} in flight, weight 2"


# latency


def test_latency_takes_the_faster_of_two_and_counts_who_waits_already() -> None:
    slow, fast = StateSnapshot(latency_ewma_seconds=2.0), StateSnapshot(latency_ewma_seconds=0.5)
    assert order(planned(Strategy.LATENCY, deployment("a"), deployment("b"), a=slow, b=fast)) == ["b", "a"]
    crowded = StateSnapshot(latency_ewma_seconds=0.5, in_flight=4)  # 0.5 x 5 > 2 x 1
    found = planned(Strategy.LATENCY, deployment("a"), deployment("b"), a=slow, b=crowded)
    assert order(found) == ["a", "b"]
    assert reasons(found) == {
        "a": "first token in about 2.00 s, 0 in flight",
        "b": "first token in about 0.50 s, 4 in flight",
    }


def test_latency_compares_two_that_were_drawn_not_all() -> None:
    """The fastest is not drawn: a herd of gateways would otherwise run after it."""
    found = planned(
        Strategy.LATENCY,
        *map(deployment, "abc"),
        draws=[0.1, 0.2, 0.9, 0.1, 0.2, 0.1],
        a=StateSnapshot(latency_ewma_seconds=3),
        b=StateSnapshot(latency_ewma_seconds=2),
        c=StateSnapshot(latency_ewma_seconds=1),
    )
    assert order(found)[0] == "b"
    assert sorted(order(found)) == ["a", "b", "c"]


def test_an_unmeasured_deployment_is_tried_by_one_request_at_a_time() -> None:
    known = StateSnapshot(latency_ewma_seconds=0.001)
    tried = StateSnapshot(in_flight=1)
    assert order(planned(Strategy.LATENCY, deployment("known"), deployment("new"), known=known)) == ["new", "known"]
    found = planned(Strategy.LATENCY, deployment("known"), deployment("new"), known=known, new=tried)
    assert order(found) == ["known", "new"]
    assert reasons(found)["new"] == "latency unknown, 1 in flight"


# cost


def test_cost_is_that_of_this_request() -> None:
    """1,000 tokens in: `talker` is cheap to ask, `listener` is cheap to hear."""
    talker, listener = deployment("talker", price=price("1", "10")), deployment("listener", price=price("5", "2"))
    short = asking(text="x" * 4000, max_tokens=499)
    long = asking(text="x" * 4000, max_tokens=501)
    assert order(planned(Strategy.COST, talker, listener, shape=short)) == ["talker", "listener"]
    assert order(planned(Strategy.COST, talker, listener, shape=long)) == ["listener", "talker"]


def test_cost_takes_an_unlimited_answer_for_a_thousand_tokens() -> None:
    assert DEFAULT_OUTPUT_TOKENS == 1000
    found = planned(Strategy.COST, deployment("a", price=price("0", "1.5")), deployment("b", price=price("0", "2")))
    assert order(found) == ["a", "b"]
    assert reasons(found) == {"a": "about $0.0015", "b": "about $0.002"}


def test_cost_counts_fees_and_knows_the_price_table_and_puts_unknown_prices_last() -> None:
    found = planned(
        Strategy.COST,
        deployment("unknown"),
        deployment("table", model="listed"),
        deployment("fee", price=price("0", "0", fee="0.5")),
        deployment("own", model="listed", price=price("0", "3")),
        prices={"listed": price("0", "1")},
    )
    assert order(found) == ["table", "own", "fee", "unknown"]
    assert reasons(found)["unknown"] == "price unknown"


def test_equal_costs_are_drawn_by_weight() -> None:
    a, b = deployment("a", weight=3, price=price("1", "1")), deployment("b", price=price("1.0", "1.00"))
    assert order(planned(Strategy.COST, a, b, draws=[0.5, 0.3])) == ["a", "b"]
    assert order(planned(Strategy.COST, a, b, draws=[0.5, 0.1])) == ["b", "a"]


def test_only_the_cost_strategy_asks_for_prices() -> None:
    def no_prices() -> dict[str, ModelPricing]:
        raise AssertionError("not asked for")

    surroundings = around(route("a", "b"))._replace(prices=no_prices)
    assert len(plan(asking(), surroundings).candidates) == 2


# usage


def test_usage_goes_by_the_share_of_the_limits_that_is_left() -> None:
    found = planned(
        Strategy.USAGE,
        deployment("half", rpm=1000),
        deployment("most", rpm=10),
        a=StateSnapshot(),
        half=StateSnapshot(requests_this_minute=499),
        most=StateSnapshot(requests_this_minute=1),
    )
    assert order(found) == ["most", "half"]
    assert reasons(found) == {"most": "80% of its rate limit left", "half": "50% of its rate limit left"}


def test_usage_counts_the_tighter_limit_and_this_request() -> None:
    found = planned(
        Strategy.USAGE,
        deployment("tokens", rpm=100, tpm=1000),
        deployment("requests", rpm=4),
        shape=asking(text="x" * 400),
        tokens=StateSnapshot(tokens_this_minute=800),
    )
    assert order(found) == ["requests", "tokens"]
    assert reasons(found) == {"requests": "75% of its rate limit left", "tokens": "10% of its rate limit left"}


@pytest.mark.parametrize(
    ("limits", "state", "is_used_up"),
    [
        ({"rpm": 10}, StateSnapshot(requests_this_minute=9), False),
        ({"rpm": 10}, StateSnapshot(requests_this_minute=10), True),
        ({"tpm": 1000}, StateSnapshot(tokens_this_minute=900), False),
        ({"tpm": 1000}, StateSnapshot(tokens_this_minute=901), True),
        ({"tpm": 99}, StateSnapshot(), True),
        ({"rpm": 10, "tpm": 1000}, StateSnapshot(requests_this_minute=1, tokens_this_minute=950), True),
    ],
)
@pytest.mark.parametrize("members", [{}, {"user": "u"}])
def test_a_limit_that_is_used_up_comes_last_also_for_a_session(
    limits: dict[str, int], state: StateSnapshot, is_used_up: bool, members: dict[str, Any]
) -> None:
    full = StateSnapshot(requests_this_minute=2000)
    found = planned(
        Strategy.USAGE,
        deployment("limited", **limits),
        deployment("over", rpm=1000),
        shape=asking(text="x" * 400, **members),
        limited=state,
        over=full,
    )
    assert (reasons(found)["limited"].endswith("rate limit used up")) is is_used_up
    if not is_used_up:
        assert order(found) == ["limited", "over"]


def test_no_limit_is_all_the_room_there_is() -> None:
    found = planned(Strategy.USAGE, deployment("limited", rpm=10**6), deployment("free"))
    assert order(found) == ["free", "limited"]
    assert reasons(found)["free"] == "no rate limit known"


# sessions


@pytest.mark.parametrize("strategy", Strategy)
def test_a_session_stays_whatever_chance_says(strategy: Strategy) -> None:
    orders = {
        tuple(order(planned(strategy, *map(deployment, "abcd"), shape=asking(user="u"), draws=draws)))
        for draws in ([0.1, 0.2, 0.3, 0.4] * 9, [0.4, 0.3, 0.2, 0.1] * 9)
    }
    assert len(orders) == 1


def test_a_session_stays_in_every_process() -> None:
    """Of the hash itself: workers and restarts must agree, and a new version of the gateway with the old one."""
    homes = [
        order(planned(Strategy.WEIGHTED, *map(deployment, "abcd"), shape=asking(user=f"user {n}")))[0] for n in range(8)
    ]
    assert "".join(homes) == "bdddaaba"


def test_a_route_that_is_not_sticky_draws_for_sessions_too() -> None:
    shape = asking(user="u")
    homes = {
        order(planned(Strategy.WEIGHTED, deployment("a"), deployment("b"), shape=shape, sticky=False, draws=draws))[0]
        for draws in ([0.1, 0.9], [0.9, 0.1])
    }
    assert homes == {"a", "b"}


def test_a_session_may_override_what_is_good_but_not_order_or_price() -> None:
    for number in range(20):
        shape = asking(user=str(number))
        assert order(planned(Strategy.PRIORITY, deployment("b", order=1), deployment("a"), shape=shape)) == ["a", "b"]
        cheap, dear = deployment("cheap", price=price("1", "1")), deployment("dear", price=price("2", "1"))
        assert order(planned(Strategy.COST, dear, cheap, shape=shape)) == ["cheap", "dear"]
    busy = StateSnapshot(in_flight=9)
    homes = {
        order(planned(Strategy.LEAST_BUSY, deployment("a"), deployment("b"), shape=asking(user=str(number)), a=busy))[0]
        for number in range(20)
    }
    assert homes == {"a", "b"}


def test_a_session_says_so() -> None:
    home, other = planned(Strategy.WEIGHTED, deployment("a"), deployment("b"), shape=asking(session_id="s"))
    assert home.reason == "this session's own; weight 1 of 2"
    assert other.reason == "weight 1 of 2"
