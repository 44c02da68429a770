"""From a request to the deployments that are tried for it, in order, and the reasons."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from proxy.domain.catalog import AUTO, Catalog, Deployment, FallbackKind, ModelRoute
from proxy.domain.errors import ModelNotFound
from proxy.domain.routing.auto import fallbacks_of_auto, select_model
from proxy.domain.routing.candidates import Candidate, Dropped, Plan
from proxy.domain.routing.filters import Cause, Objection, objection_to
from proxy.domain.routing.refusal import refusal
from proxy.domain.routing.shape import RequestShape
from proxy.domain.routing.strategies import ONLY, Available, ordered
from proxy.domain.routing.surroundings import Surroundings

_NO_SUCH_MODEL: Final = Objection(Cause.UNKNOWN_MODEL, "no such model")
_KINDS: Final = {
    FallbackKind.GENERAL: "fallback",
    FallbackKind.CONTEXT_WINDOW: "fallback for long prompts",
    FallbackKind.CONTENT_POLICY: "fallback for refused contents",
}
_REMEMBERED_PLANS: Final = 1024
_LONGEST_REMEMBERED_NAME: Final = 256
_AFTER: Final = (FallbackKind.CONTEXT_WINDOW, FallbackKind.CONTENT_POLICY)


class _Step(NamedTuple):
    """A model that may be tried, and what brought it into the plan."""

    model: str
    reason: str = ""
    is_fallback: bool = True
    is_listed: bool = False  # by the request


def plan(shape: RequestShape, around: Surroundings) -> Plan:
    """The deployments to try for a request, best first.

    Those of the model asked for come first. Other models follow only where they were asked for (`auto`, the request's
    `models`) or where the catalog has a fallback chain. Whoever is cooling down for a short while only comes last of
    all: it is waited for when nobody else has answered.

    Raises:
        ModelNotFound: the catalog does not have the model.
        TokenLimitExceeded: the prompt is too long for every deployment, or for `auto`.
        NoSuitableDeployment: no deployment can do what the request needs.
        CircuitOpen, NoDeploymentAvailable: none may be asked now; they say when to come back.
    """
    lone = _plan_without_choice(shape, around)
    if lone is not None:
        return lone
    planning = _Planning(shape, around)
    first, *chosen_too = _chosen(shape, around)
    planning.add(first)
    if planning.route is None and shape.model != AUTO:
        raise ModelNotFound(shape.model)
    if planning.is_too_long():
        planning.add_all(_configured(FallbackKind.CONTEXT_WINDOW, shape.model, planning.route, around))
    planning.add_all(chosen_too)
    planning.add_all([_Step(model, "in the request's models", is_listed=True) for model in shape.models])
    planning.add_all(_configured(FallbackKind.GENERAL, shape.model, planning.route, around))
    return planning.finished()


def _plan_without_choice(shape: RequestShape, around: Surroundings) -> Plan | None:
    """The plan where one deployment alone can serve a request, and may be asked: most requests, in most gateways."""
    if shape.lists_models or len(shape.model) > _LONGEST_REMEMBERED_NAME:
        return None
    lone = _lone_plan(around.catalog, shape.model)
    if lone is None:
        return None
    deployment = lone.candidates[0].deployment
    return lone if objection_to(deployment, around.states(deployment), shape) is None else None


@lru_cache(_REMEMBERED_PLANS)
def _lone_plan(catalog: Catalog, model: str) -> Plan | None:
    """The plan of a model that one deployment serves, and that nothing stands behind. Catalogs never change."""
    route = catalog.resolve(model) if model != AUTO else None
    if route is None or len(route.deployments) > 1:
        return None
    if catalog.fallbacks_of(FallbackKind.GENERAL, model, route.name):
        return None
    return Plan(model, route, (Candidate(route.deployments[0], route.name, ONLY),))


def plan_after(
    failure: FallbackKind, before: Plan, attempted: Iterable[Candidate], shape: RequestShape, around: Surroundings
) -> Plan:
    """What else to try after a failure of that kind: the chain that the catalog has for it, but for what was attempted.

    Without such a chain, or when all of it is dropped, the plan has no candidates.
    """
    planning = _Planning(shape, around)
    planning.route = before.route
    planning.seen = {(candidate.deployment.name, candidate.model) for candidate in attempted}
    planning.add_all(_configured(failure, before.requested, before.route, around))
    return Plan(before.requested, before.route, tuple(planning.candidates), tuple(planning.dropped))


def may_come_after(plan: Plan, catalog: Catalog) -> list[Deployment]:
    """All that `plan_after` may add to a plan: they may be dearer than what it has."""
    deployments: list[Deployment] = []
    if not catalog.fallbacks:
        return deployments
    for kind in _AFTER:
        for model in catalog.fallbacks_of(kind, plan.requested, plan.route.name):
            route = catalog.resolve(model)
            deployments += route.deployments if route is not None else ()
    return deployments


def _chosen(shape: RequestShape, around: Surroundings) -> list[_Step]:
    """The model that the request names, or those that `auto` chooses."""
    if shape.model != AUTO:
        return [_Step(shape.model, is_fallback=False)]
    model, reason = select_model(AUTO, shape.input_tokens, around.policy)
    following = [_Step(model, reason) for model, reason in fallbacks_of_auto(model, around.policy)]
    return [_Step(model, reason, is_fallback=False), *following]


def _configured(kind: FallbackKind, requested: str, first: ModelRoute | None, around: Surroundings) -> list[_Step]:
    """The chain of the model asked for: by the name that was used, else by the catalog's own."""
    chain = around.catalog.fallbacks_of(kind, requested, first.name if first else requested)
    return [_Step(model, f"{_KINDS[kind]} of {requested}") for model in chain]


def _joined(of_model: str, of_deployment: str) -> str:
    if not of_model:
        return of_deployment
    return of_model if of_deployment == ONLY else f"{of_model}; {of_deployment}"


class _Planning:
    """A plan in the making. Nothing gets into it twice: no deployment with the same model, kept or dropped."""

    def __init__(self, shape: RequestShape, around: Surroundings) -> None:
        self.route: ModelRoute | None = None
        self.candidates: list[Candidate] = []
        self.dropped: list[Dropped] = []
        self.seen: set[tuple[str, str]] = set()
        self._resting: list[tuple[float, Candidate]] = []
        self._shape = shape
        self._around = around

    def add_all(self, steps: Iterable[_Step]) -> None:
        for step in steps:
            self.add(step)

    def add(self, step: _Step) -> None:
        """The deployments of one more model, behind what is there already."""
        route = self._around.catalog.resolve(step.model)
        if route is None:
            self._unknown(step.model)
            return
        if self.route is None:
            self.route = route
        available = [each for deployment in route.deployments if (each := self._admitted(deployment, route, step))]
        if not available:
            return
        for deployment, reason in ordered(route, available, self._shape, self._around):
            self.candidates.append(Candidate(deployment, route.name, _joined(step.reason, reason), step.is_fallback))

    def _unknown(self, model: str) -> None:
        if ("", model) not in self.seen:
            self.seen.add(("", model))
            self.dropped.append(Dropped(None, model, _NO_SUCH_MODEL))

    def _admitted(self, deployment: Deployment, route: ModelRoute, step: _Step) -> Available | None:
        """The deployment and its state; None if it is dropped, or in the plan already."""
        place = (deployment.name, deployment.model)
        if place in self.seen:
            return None
        self.seen.add(place)
        state = self._around.states(deployment)
        objection = objection_to(deployment, state, self._shape)
        if objection is None and step.is_listed:
            objection = self._asked_anyway(deployment)
        if objection is not None and objection.cause is Cause.COOLING_DOWN and state.may_be_waited_for:
            reason = _joined(step.reason, f"{objection.reason}, waited for if nobody else answers")
            candidate = Candidate(deployment, route.name, reason, step.is_fallback, must_rest=True)
            self._resting.append((state.cooling_down_seconds, candidate))
            return None
        if objection is not None:
            self.dropped.append(Dropped(deployment, route.name, objection))
            return None
        return Available(deployment, state)

    def _asked_anyway(self, deployment: Deployment) -> Objection | None:
        """A provider that walks the request's models itself need not be asked for each of them."""
        if not deployment.walks_models:
            return None
        asked = {each.deployment.provider for each in self.candidates if each.deployment.walks_models}
        if deployment.provider not in asked:
            return None
        return Objection(Cause.ASKED_ANYWAY, f"{deployment.provider} walks the request's models itself")

    def is_too_long(self) -> bool:
        """Whether every deployment so far has too small a context window."""
        if self.candidates or self._resting:
            return False
        return all(each.objection.cause is Cause.CONTEXT_WINDOW for each in self.dropped)

    def finished(self) -> Plan:
        """The plan. Raises what it has to say if there is nothing to try."""
        resting = [candidate for _, candidate in sorted(self._resting, key=lambda each: each[0])]
        candidates = (*self.candidates, *resting)
        if self.route is None or not candidates:
            raise refusal(self._shape, self.dropped)
        return Plan(self._shape.model, self.route, candidates, tuple(self.dropped))
