"""In which order deployments are tried: one function for each strategy.

A function says of each deployment in which rank it stands and how good it is within the rank (lower is better). Equals
are drawn by weight. A session overrides what is good, not the rank: it may choose among the equally cheap, and among
the more or less busy, but not something dearer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from proxy.domain.catalog import Deployment, ModelRoute, Strategy
from proxy.domain.routing.lots import Draw, arrival, at_random, of_session
from proxy.domain.routing.shape import RequestShape
from proxy.domain.routing.state import DeploymentState
from proxy.domain.routing.surroundings import Surroundings

DEFAULT_OUTPUT_TOKENS: Final = 1000  # what an answer is taken to have when the request sets no limit
_UNMEASURED_SECONDS: Final = 1e6
ONLY: Final = "the only deployment"
_LAST_LEFT: Final = "the only one left"
_LAST_RESORT: Final = "weight 0, last resort"


class Available(NamedTuple):
    """A deployment that may be asked, and its state."""

    deployment: Deployment
    state: DeploymentState


class Standing(NamedTuple):
    """Where a deployment stands: ranks come one after the other, within one the lower score is better."""

    deployment: Deployment
    rank: tuple[Decimal | int, ...]
    score: float
    reason: str


def ordered(
    route: ModelRoute, available: Sequence[Available], shape: RequestShape, around: Surroundings
) -> list[tuple[Deployment, str]]:
    """The deployments in the order in which to try them, each with the reason."""
    if len(available) == 1:
        reason = ONLY if len(route.deployments) == 1 else _LAST_LEFT
        return [(available[0].deployment, reason)]
    standings = _STANDINGS[route.strategy](available, shape, around)
    session = shape.session if route.sticky else None
    if session is not None:
        return _for_session(standings, of_session(session))
    draw = at_random(around.random)
    if route.strategy is Strategy.LATENCY:
        standings = _better_of_two(standings, draw)
    else:
        standings.sort(key=lambda each: (_rank(each), each.score, _arrival(each, draw)))
    return [(each.deployment, _reason(each)) for each in standings]


def _for_session(standings: list[Standing], draw: Draw) -> list[tuple[Deployment, str]]:
    standings.sort(key=lambda each: (_rank(each), _arrival(each, draw)))
    home, *others = standings
    return [
        (home.deployment, f"this session's own; {_reason(home)}"),
        *((each.deployment, _reason(each)) for each in others),
    ]


def _better_of_two(standings: list[Standing], draw: Draw) -> list[Standing]:
    """Two are drawn, the better one is next, the other goes back: a herd would only follow the best of all."""
    waiting, order = [*standings], list[Standing]()
    while waiting:
        waiting.sort(key=lambda each: (_rank(each), _arrival(each, draw)))
        pair = [each for each in waiting[:2] if _rank(each) == _rank(waiting[0])]
        better = min(pair, key=lambda each: each.score)
        waiting.remove(better)
        order.append(better)
    return order


def _rank(standing: Standing) -> tuple[bool, tuple[Decimal | int, ...]]:
    """Those without weight come after all others."""
    return standing.deployment.weight == 0, standing.rank


def _reason(standing: Standing) -> str:
    return standing.reason if standing.deployment.weight else _LAST_RESORT


def _arrival(standing: Standing, draw: Draw) -> float:
    return arrival(draw(standing.deployment.name), standing.deployment.weight)


# The strategies.

_Strategy = Callable[[Sequence[Available], RequestShape, Surroundings], list[Standing]]


def _weighted(available: Sequence[Available], _shape: RequestShape, _around: Surroundings) -> list[Standing]:
    total = sum(deployment.weight for deployment, _ in available)
    return [Standing(deployment, (), 0.0, f"weight {deployment.weight:g} of {total:g}") for deployment, _ in available]


def _priority(available: Sequence[Available], _shape: RequestShape, _around: Surroundings) -> list[Standing]:
    return [Standing(deployment, (deployment.order,), 0.0, f"order {deployment.order}") for deployment, _ in available]


def _least_busy(available: Sequence[Available], _shape: RequestShape, _around: Surroundings) -> list[Standing]:
    return [
        Standing(
            deployment,
            (),
            state.in_flight / (deployment.weight or 1.0),
            f"{state.in_flight} in flight, weight {deployment.weight:g}",
        )
        for deployment, state in available
    ]


def _latency(available: Sequence[Available], _shape: RequestShape, _around: Surroundings) -> list[Standing]:
    return [Standing(deployment, (), *_expected_wait(state)) for deployment, state in available]


def _expected_wait(state: DeploymentState) -> tuple[float, str]:
    """An unmeasured deployment is tried, but by one request at a time while it has not answered."""
    seconds, in_flight = state.latency_ewma_seconds, state.in_flight
    if seconds is None:
        return _UNMEASURED_SECONDS * in_flight, f"latency unknown, {in_flight} in flight"
    return seconds * (in_flight + 1), f"first token in about {seconds:.2f} s, {in_flight} in flight"


def _cost(available: Sequence[Available], shape: RequestShape, around: Surroundings) -> list[Standing]:
    output_tokens = shape.max_output_tokens or DEFAULT_OUTPUT_TOKENS
    standings: list[Standing] = []
    for deployment, _ in available:
        price = deployment.price or around.prices().get(deployment.model)
        if price is None:
            standings.append(Standing(deployment, (1,), 0.0, "price unknown"))
        else:
            usd = price.cost(shape.input_tokens, output_tokens).usd
            standings.append(Standing(deployment, (0, usd), 0.0, f"about ${float(usd):.3g}"))
    return standings


def _usage(available: Sequence[Available], shape: RequestShape, _around: Surroundings) -> list[Standing]:
    standings: list[Standing] = []
    for deployment, state in available:
        used = _used_share(deployment, state, shape)
        if deployment.rpm is None and deployment.tpm is None:
            standings.append(Standing(deployment, (0,), 0.0, "no rate limit known"))
        elif used > 1:
            standings.append(Standing(deployment, (1,), used, "rate limit used up"))
        else:
            standings.append(Standing(deployment, (0,), used, f"{1 - used:.0%} of its rate limit left"))
    return standings


def _used_share(deployment: Deployment, state: DeploymentState, shape: RequestShape) -> float:
    """How much of the tighter limit is used when this request is counted in; 0 if there is none, over 1 if too much."""
    requests = (state.requests_this_minute + 1) / deployment.rpm if deployment.rpm else 0.0
    tokens = (state.tokens_this_minute + shape.input_tokens) / deployment.tpm if deployment.tpm else 0.0
    return max(requests, tokens)


_STANDINGS: Final[Mapping[Strategy, _Strategy]] = {
    Strategy.WEIGHTED: _weighted,
    Strategy.PRIORITY: _priority,
    Strategy.LEAST_BUSY: _least_busy,
    Strategy.LATENCY: _latency,
    Strategy.COST: _cost,
    Strategy.USAGE: _usage,
}
