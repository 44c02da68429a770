"""What the gateway offers: public model names, and the deployments that serve them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import ModelPricing

AUTO = "auto"
WILDCARD = "*"
_REMEMBERED_NAMES = 1024
_LONGEST_REMEMBERED_NAME = 256


class Strategy(StrEnum):
    """In which order the deployments of a model are tried."""

    WEIGHTED = "weighted"  # at random, by weight
    PRIORITY = "priority"  # lowest `order` first
    LEAST_BUSY = "least-busy"  # fewest requests in flight for its weight
    LATENCY = "latency"  # the faster of two drawn at random
    COST = "cost"  # cheapest for this request
    USAGE = "usage"  # most of its rate limits left


class Capability(StrEnum):
    """What a request may need and not every model has."""

    VISION = "vision"
    AUDIO = "audio"
    FILES = "files"
    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"


class FallbackKind(StrEnum):
    """Which failures a fallback chain is for."""

    GENERAL = "general"  # the deployments are down, or refuse for now
    CONTEXT_WINDOW = "context_window"  # the prompt is too long for them
    CONTENT_POLICY = "content_policy"  # they refuse what the prompt is about


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach a model: a provider, and the provider's name for the model.

    `name` is what breakers, statistics and traces call it. In a route with a wildcard, a `*` in `model` stands for
    what the route's `*` matched. `weight` 0 means: only when nothing else is left. `order` is for the priority
    strategy, lowest first. `rpm` and `tpm` are the provider's limits in requests and tokens per minute.
    Capabilities and a context window that are None are not known, and no request is kept away because of them.
    `walks_models` says that the provider itself walks a request's `models` list.
    """

    name: str
    provider: str
    model: str
    weight: float = 1
    order: int = 0
    rpm: int | None = None
    tpm: int | None = None
    tags: frozenset[str] = frozenset()
    capabilities: frozenset[Capability] | None = None
    context_window_tokens: int | None = None
    price: ModelPricing | None = None
    walks_models: bool = False

    def __post_init__(self) -> None:
        for what in ("name", "provider", "model"):
            if not getattr(self, what).strip():
                raise InvalidValue(f"The {what} of a deployment cannot be empty")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InvalidValue(f"The weight of deployment '{self.name}' must be a number from 0 up")
        for what in ("rpm", "tpm", "context_window_tokens"):
            limit = getattr(self, what)
            if limit is not None and limit <= 0:
                raise InvalidValue(f"{what} of deployment '{self.name}' must be greater than zero")


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A public model name and the deployments behind it. A name with a `*` stands for every name that fits it.

    `sticky` keeps the requests of one session on one deployment, whose prompt cache knows them. `hedge_after` is when
    a second deployment is asked as well: a number of seconds, or the 95th percentile of the times to first token.
    """

    name: str
    deployments: tuple[Deployment, ...]
    strategy: Strategy = Strategy.WEIGHTED
    sticky: bool = True
    hedge_after: float | Literal["p95"] | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise InvalidValue("Model name cannot be null or empty")
        if self.name.count(WILDCARD) > 1:
            raise InvalidValue(f"Model '{self.name}' may have one '*' only")
        if not self.deployments:
            raise InvalidValue(f"Model '{self.name}' has no deployments")
        names = [deployment.name for deployment in self.deployments]
        for name in names:
            if names.count(name) > 1:
                raise InvalidValue(f"Model '{self.name}' has two deployments named '{name}'")
        if isinstance(self.hedge_after, int | float) and not self.hedge_after > 0:
            raise InvalidValue(f"hedge_after of model '{self.name}' must be greater than zero")

    @property
    def is_wildcard(self) -> bool:
        return WILDCARD in self.name

    def standing_for(self, model: str, matched: str) -> ModelRoute:
        """This wildcard route as the route of one model, whose name has `matched` in the place of the `*`."""
        deployments = tuple(
            replace(deployment, model=deployment.model.replace(WILDCARD, matched))
            if WILDCARD in deployment.model
            else deployment
            for deployment in self.deployments
        )
        return replace(self, name=model, deployments=deployments)


class NamePatterns:
    """Finds the most specific of several names with a `*`: the one with the most text beside it."""

    def __init__(self, patterns: Sequence[str]) -> None:
        split = [(*pattern.split(WILDCARD, 1), pattern) for pattern in patterns]
        self._patterns = sorted(split, key=lambda parts: (-len(parts[2]), -len(parts[0])))

    def match(self, name: str) -> tuple[str, str] | None:
        """The pattern and what its `*` stands for, which is never nothing; None if no pattern fits."""
        for before, after, pattern in self._patterns:
            end = len(name) - len(after)
            if end > len(before) and name.startswith(before) and name.endswith(after):
                return pattern, name[len(before) : end]
        return None


class Catalog:
    """All routes, other names for them, and what stands behind them. Read-only once made.

    `aliases` lead from a name to a route's name, to another alias, or to a name that a wildcard fits. `fallbacks` give,
    for each kind of failure, the models that stand behind a model; a key may be a name, an alias or a pattern.

    Raises:
        InvalidValue: two routes of one name, the reserved name `auto`, or a name that leads nowhere.
    """

    def __init__(
        self,
        routes: Sequence[ModelRoute],
        aliases: Mapping[str, str] | None = None,
        fallbacks: Mapping[FallbackKind, Mapping[str, tuple[str, ...]]] | None = None,
    ) -> None:
        self.routes = tuple(routes)
        self.aliases = dict(aliases or {})
        self.fallbacks = dict(fallbacks or {})
        self._exact = {route.name: route for route in routes if not route.is_wildcard}
        self._patterns = {route.name: route for route in routes if route.is_wildcard}
        self._matcher = NamePatterns(list(self._patterns))
        self._find_remembering = lru_cache(_REMEMBERED_NAMES)(self._find)
        self._chains = {kind: _Chains(chains) for kind, chains in self.fallbacks.items() if chains}
        self._check_routes()
        self._check_aliases()
        self._check_fallbacks()

    def resolve(self, model: str) -> ModelRoute | None:
        """The route of that name, else of what it is an alias of, else of the most specific pattern that fits it.

        For a pattern the route is that of the one model: its name, and the deployments' models with the `*` filled in.
        None if there is no such model; `auto` is none.
        """
        route = self._exact.get(model)
        if route is not None:
            return route
        return self._find_remembering(model) if len(model) <= _LONGEST_REMEMBERED_NAME else self._find(model)

    def configured_name(self, model: str) -> str | None:
        """The name or pattern of the route that serves the model, as the configuration has it: never the client's text.

        `auto` is its own; None if there is no such model.
        """
        if model == AUTO:
            return AUTO
        while model in self.aliases and model not in self._exact:
            model = self.aliases[model]
        if model in self._exact:
            return model
        found = self._matcher.match(model)
        return found[0] if found else None

    def fallbacks_of(self, kind: FallbackKind, *names: str) -> tuple[str, ...]:
        """The models that stand behind a model, given by each of its names; the first one that has a chain counts."""
        chains = self._chains.get(kind)
        if chains is None:
            return ()
        return next((chain for name in names if (chain := chains.of(name))), ())

    def _find(self, model: str) -> ModelRoute | None:
        while model in self.aliases and model not in self._exact:
            model = self.aliases[model]
        route = self._exact.get(model)
        if route is None and model != AUTO and (found := self._matcher.match(model)) is not None:
            pattern, matched = found
            route = self._patterns[pattern].standing_for(model, matched)
        return route

    def _check_routes(self) -> None:
        names = [route.name for route in self.routes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidValue(f"Model '{twice}' is in the catalog twice")
        if AUTO in names or AUTO in self.aliases:
            raise InvalidValue(f"The model name '{AUTO}' is reserved: it lets the gateway choose")

    def _check_aliases(self) -> None:
        for alias in self.aliases:
            if alias in self._exact:
                raise InvalidValue(f"'{alias}' is both a model and an alias")
            seen, name = [alias], self.aliases[alias]
            while name in self.aliases:
                if name in seen:
                    raise InvalidValue(f"Alias '{alias}' leads in a circle: {' -> '.join([*seen, name])}")
                seen.append(name)
                name = self.aliases[name]
            if self._find(name) is None:
                raise InvalidValue(f"Alias '{alias}' leads to '{name}', which is no model of the catalog")

    def _check_fallbacks(self) -> None:
        for kind, chains in self.fallbacks.items():
            for model, chain in chains.items():
                if WILDCARD not in model and model != AUTO and self._find(model) is None:
                    raise InvalidValue(f"Fallbacks ({kind}) are given for '{model}', which is no model of the catalog")
                for fallback in chain:
                    if self._find(fallback) is None:
                        raise InvalidValue(f"Fallback '{fallback}' of '{model}' ({kind}) is no model of the catalog")


class _Chains:
    """Fallback chains of one kind, found by name or by pattern."""

    def __init__(self, chains: Mapping[str, tuple[str, ...]]) -> None:
        self._chains = chains
        self._matcher = NamePatterns([name for name in chains if WILDCARD in name])

    def of(self, name: str) -> tuple[str, ...]:
        if name in self._chains:
            return self._chains[name]
        found = self._matcher.match(name)
        return self._chains[found[0]] if found else ()


def one_provider(provider: str) -> Catalog:
    """The catalog of a gateway without configuration: every model name goes to this one provider as it is."""
    deployment = Deployment(name=provider, provider=provider, model=WILDCARD, walks_models=True)
    return Catalog([ModelRoute(name=WILDCARD, deployments=(deployment,))])
