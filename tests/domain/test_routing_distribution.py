"""Where many requests go, by simulation with a seeded chance."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean, quantiles

import pytest

from proxy.domain.catalog import Deployment, Strategy
from proxy.domain.routing import DeploymentState, StateSnapshot, Surroundings, plan
from proxy.domain.routing.peak_ewma import PeakEwma
from tests.catalogs import around, asking, deployment, route

SHAPE = asking()
WEIGHTS = {"a": 5.0, "b": 3.0, "c": 1.5, "d": 0.5}


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # the same each time


def weighted(weights: Mapping[str, float], strategy: Strategy = Strategy.WEIGHTED) -> Surroundings:
    deployments = [deployment(name, weight=weight) for name, weight in weights.items()]
    return around(route(*deployments, strategy=strategy), chance=chance(7).random)


def shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.items()}


def home(surroundings: Surroundings, session: str) -> str:
    return plan(asking(user=session), surroundings).candidates[0].deployment.name


# Weights


@pytest.mark.parametrize("strategy", [Strategy.WEIGHTED, Strategy.PRIORITY, Strategy.LEAST_BUSY, Strategy.COST])
def test_equals_get_requests_by_weight(strategy: Strategy) -> None:
    surroundings = weighted(WEIGHTS, strategy)
    firsts = Counter(plan(SHAPE, surroundings).candidates[0].deployment.name for _ in range(20_000))
    assert shares(firsts) == pytest.approx({name: weight / 10 for name, weight in WEIGHTS.items()}, abs=0.01)


def test_the_second_choice_is_by_weight_among_the_others() -> None:
    """Retries, too, must not all go to one deployment."""
    surroundings = weighted(WEIGHTS)
    orders = [[each.deployment.name for each in plan(SHAPE, surroundings).candidates] for _ in range(30_000)]
    after_a = Counter(order[1] for order in orders if order[0] == "a")
    assert shares(after_a) == pytest.approx({"b": 3 / 5, "c": 1.5 / 5, "d": 0.5 / 5}, abs=0.015)


# Sessions


def test_sessions_are_spread_by_weight() -> None:
    surroundings = weighted(WEIGHTS)
    homes = Counter(home(surroundings, f"session {number}") for number in range(10_000))
    assert shares(homes) == pytest.approx({name: weight / 10 for name, weight in WEIGHTS.items()}, abs=0.015)


def test_when_a_deployment_leaves_only_its_sessions_move_and_by_weight() -> None:
    everyone = weighted(WEIGHTS)
    fewer = weighted({name: weight for name, weight in WEIGHTS.items() if name != "b"})
    sessions = [f"session {number}" for number in range(5_000)]
    before = {session: home(everyone, session) for session in sessions}
    after = {session: home(fewer, session) for session in sessions}
    moved = [session for session in sessions if before[session] != after[session]]
    assert moved == [session for session in sessions if before[session] == "b"]
    assert len(moved) / len(sessions) == pytest.approx(0.3, abs=0.02)
    assert shares(Counter(after[session] for session in moved)) == pytest.approx(
        {"a": 5 / 7, "c": 1.5 / 7, "d": 0.5 / 7}, abs=0.04
    )


def test_a_breaker_that_opens_moves_sessions_to_their_second_choice_and_back() -> None:
    surroundings = weighted(WEIGHTS)
    opened = surroundings._replace(
        states=lambda each: StateSnapshot(breaker_open_seconds=5.0 if each.name == "a" else 0.0)
    )
    for number in range(500):
        shape = asking(user=str(number))
        usually = [each.deployment.name for each in plan(shape, surroundings).candidates]
        meanwhile = [each.deployment.name for each in plan(shape, opened).candidates]
        assert meanwhile == [name for name in usually if name != "a"]


def test_a_deployment_that_is_given_more_weight_only_wins_sessions() -> None:
    before, after = weighted({"a": 1, "b": 1, "c": 1}), weighted({"a": 2, "b": 1, "c": 1})
    sessions = [f"session {number}" for number in range(2_000)]
    moves = {(home(before, session), home(after, session)) for session in sessions}
    assert moves == {("a", "a"), ("b", "b"), ("c", "c"), ("b", "a"), ("c", "a")}


# Load: requests come and go


@dataclass
class Live:
    """What a gateway would know of a deployment that takes about so many seconds."""

    seconds: float
    in_flight: int = 0
    latency: PeakEwma = field(default_factory=PeakEwma)
    served: int = 0


@dataclass
class Traffic:
    """Requests that arrive at random. `spreads` are how many more the busiest had in flight than the idlest."""

    deployments: Mapping[str, Live]
    strategy: Strategy
    per_second: float = 20.0
    weights: Mapping[str, float] = field(default_factory=dict)
    now: float = 0.0
    times: list[float] = field(default_factory=list)
    spreads: list[int] = field(default_factory=list)

    def state(self, wanted: Deployment) -> DeploymentState:
        live = self.deployments[wanted.name]
        return StateSnapshot(in_flight=live.in_flight, latency_ewma_seconds=live.latency.value(self.now))

    def run(self, requests: int, seed: int) -> None:
        luck = chance(seed)
        behind = [deployment(name, weight=self.weights.get(name, 1.0)) for name in self.deployments]
        surroundings = around(route(*behind, strategy=self.strategy), chance=luck.random)._replace(states=self.state)
        finishing: list[tuple[float, int, str, float]] = []
        for number in range(requests):
            self.now += luck.expovariate(self.per_second)
            while finishing and finishing[0][0] <= self.now:
                self._finish(*heapq.heappop(finishing))
            name = plan(SHAPE, surroundings).candidates[0].deployment.name
            live = self.deployments[name]
            live.in_flight += 1
            live.served += 1
            taken = live.seconds * luck.uniform(0.8, 1.2)
            self.times.append(taken)
            in_flight = [each.in_flight for each in self.deployments.values()]
            self.spreads.append(max(in_flight) - min(in_flight))
            heapq.heappush(finishing, (self.now + taken, number, name, taken))

    def _finish(self, at: float, _number: int, name: str, taken: float) -> None:
        live = self.deployments[name]
        live.in_flight -= 1
        live.latency.observe(taken, at)


def simulated(strategy: Strategy, seconds: Mapping[str, float], weights: Mapping[str, float] | None = None) -> Traffic:
    traffic = Traffic({name: Live(each) for name, each in seconds.items()}, strategy, weights=weights or {})
    traffic.run(5_000, seed=11)
    return traffic


ONE_IS_SLOW = {"a": 0.2, "b": 0.2, "c": 0.2, "slow": 4.0}


def test_latency_beats_chance_when_one_deployment_is_slow() -> None:
    by_chance, by_latency = simulated(Strategy.WEIGHTED, ONE_IS_SLOW), simulated(Strategy.LATENCY, ONE_IS_SLOW)
    assert mean(by_latency.times) < mean(by_chance.times) / 3
    assert quantiles(by_chance.times, n=20)[-1] > 3
    assert quantiles(by_latency.times, n=20)[-1] < 0.5
    assert by_chance.deployments["slow"].served > 5_000 * 0.2
    assert by_latency.deployments["slow"].served < 5_000 * 0.05


def test_latency_comes_back_to_a_deployment_that_has_recovered() -> None:
    traffic = simulated(Strategy.LATENCY, ONE_IS_SLOW)
    recovered = traffic.deployments["slow"]
    recovered.seconds, recovered.served = 0.2, 0
    traffic.run(10_000, seed=12)
    assert recovered.served > 10_000 * 0.15


def test_latency_does_not_send_everything_to_a_newcomer_that_hangs() -> None:
    traffic = simulated(Strategy.LATENCY, {"a": 0.2, "b": 0.2, "hangs": 1e9})
    assert traffic.deployments["hangs"].served <= 2


def test_latency_spreads_requests_over_equals() -> None:
    traffic = simulated(Strategy.LATENCY, dict.fromkeys("abcd", 1.0))
    counts = [live.served for live in traffic.deployments.values()]
    assert max(counts) < 1.15 * min(counts)


def test_least_busy_keeps_the_load_even_where_chance_does_not() -> None:
    """About 20 requests are in flight over four deployments."""
    by_chance = simulated(Strategy.WEIGHTED, dict.fromkeys("abcd", 1.0))
    least_busy = simulated(Strategy.LEAST_BUSY, dict.fromkeys("abcd", 1.0))
    assert mean(least_busy.spreads) < 2.5
    assert mean(by_chance.spreads) > 4


def test_least_busy_gives_the_slow_one_what_it_can_finish() -> None:
    traffic = simulated(Strategy.LEAST_BUSY, {"fast": 0.5, "slow": 2.0})
    served = {name: live.served for name, live in traffic.deployments.items()}
    assert 2.5 < served["fast"] / served["slow"] < 5.5


def test_least_busy_lets_the_heavier_one_carry_more() -> None:
    traffic = simulated(Strategy.LEAST_BUSY, {"heavy": 1.0, "light": 1.0}, {"heavy": 3, "light": 1})
    served = {name: live.served for name, live in traffic.deployments.items()}
    assert 2.0 < served["heavy"] / served["light"] < 4.0


def test_usage_uses_limits_up_evenly_and_no_further() -> None:
    limits = {"small": 60, "large": 540}
    counts = Counter[str]()
    surroundings = around(
        route(*(deployment(name, rpm=limit) for name, limit in limits.items()), strategy=Strategy.USAGE)
    )._replace(states=lambda each: StateSnapshot(requests_this_minute=counts[each.name]))
    for number in range(1, 601):
        counts[plan(SHAPE, surroundings).candidates[0].deployment.name] += 1
        if number % 100 == 0:
            assert counts["small"] == pytest.approx(number / 10, abs=1)
    assert counts == limits
