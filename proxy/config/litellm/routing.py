"""router_settings, litellm_settings and general_settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, TypeGuard

from proxy.config.fields import MODEL_NAME, MODEL_PATTERN, AttemptCount, PositiveCount, RetrySeconds, Seconds
from proxy.config.litellm.instead import (
    CALLBACKS,
    FOR_SETTINGS,
    NEEDLESS_SETTINGS,
    NO_CALLBACKS,
    NO_LOSSES,
    NOTHING_IS_DROPPED,
)
from proxy.config.litellm.models import weigh_like_shuffling
from proxy.config.litellm.source import Section, is_reference
from proxy.config.names import Names
from proxy.config.problems import Path

_STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least-busy",
    "usage-based-routing": "usage",
    "usage-based-routing-v2": "usage",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
}
_FALLBACKS = {
    "general": "fallbacks",
    "context_window": "context_window_fallbacks",
    "content_policy": "content_policy_fallbacks",
}


class Settings:
    """Both places that routing is set in; where both set the same, router_settings counts."""

    def __init__(self, router: Section, library: Section) -> None:
        self.router = router
        self.library = library

    def holding(self, key: str) -> Section:
        """The section that sets it; the router's if neither does."""
        if key in self.router or key not in self.library:
            self.library.take(key)
            return self.router
        self.router.take(key)
        return self.library

    def lose_rest(self, *others: Section) -> None:
        """Tells of everything that was not taken, with what to do instead where there is something."""
        for section in (self.router, self.library, *others):
            section.lose_flag("drop_params", NOTHING_IS_DROPPED)
            for key in NEEDLESS_SETTINGS:
                section.take(key)
            for key in CALLBACKS:
                _lose_callbacks(section, key)
            for key, instead in FOR_SETTINGS.items():
                section.lose_flag(key, instead)
            section.lose_rest()


def _lose_callbacks(section: Section, key: str) -> None:
    called = section.take(key)
    if any(name not in NO_LOSSES for name in (called if isinstance(called, list) else [called])):
        section.lose(key, NO_CALLBACKS)


def routing_of(settings: Settings) -> dict[str, Any]:
    """Our section `routing`."""
    routing: dict[str, Any] = {}
    router = settings.router
    strategy = router.text("routing_strategy")
    if strategy in _STRATEGIES:
        routing["strategy"] = _STRATEGIES[strategy]
    else:
        router.lose("routing_strategy", "is no strategy here; `weighted` is used")
    retries = _plus_one(settings.holding("num_retries"), "num_retries", AttemptCount)
    _set(routing, "max_attempts", retries)
    _set(routing, "retry_base_seconds", settings.holding("retry_after").fitting("retry_after", RetrySeconds))
    breaker: dict[str, Any] = {}
    _set(breaker, "failure_threshold", _plus_one(settings.holding("allowed_fails"), "allowed_fails", PositiveCount))
    _set(breaker, "cooldown_seconds", settings.holding("cooldown_time").fitting("cooldown_time", Seconds))
    _set(routing, "circuit_breaker", breaker or None)
    return routing


def timeout_of(settings: Settings) -> Any:
    """The seconds that one call may take; None if the file sets none."""
    if "timeout" in settings.router:
        settings.library.take("request_timeout")
        return settings.router.fitting("timeout", Seconds)
    return settings.library.fitting("request_timeout", Seconds)


def _plus_one(section: Section, key: str, kind: Any) -> Any:
    """There retries and failures are counted that are allowed, here attempts, and failures that are too many."""
    given = section.fitting(key, Any)
    if is_reference(given):
        section.lose(key, "cannot come from the environment here, where it would be one more")
        return None
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        section.lose(key, "is no number")
        return None
    return section.fitting(key, kind, given + 1)


def _set(section: dict[str, Any], key: str, value: Any) -> None:
    if value is not None:
        section[key] = value


def set_strategies(settings: Settings, models: dict[str, dict[str, Any]], usual: str) -> None:
    """The strategies of single models: those of routing groups, and `priority` where deployments have an order."""
    for path, entry in settings.router.items("routing_groups"):
        group = Section.of(entry, path, settings.router.losses)
        group.take("group_name")
        strategy = group.text("routing_strategy")
        names = group.take("models")
        if strategy in _STRATEGIES:
            for name in names if isinstance(names, list) else ():
                if isinstance(name, str) and name in models:
                    models[name]["strategy"] = _STRATEGIES[strategy]
        else:
            group.lose("routing_strategy", "is no strategy here")
        group.lose_rest()
    for model in models.values():
        if model.get("strategy", usual) == "weighted":
            weigh_like_shuffling(model["deployments"])
        if orders := [deployment["order"] for deployment in model["deployments"] if "order" in deployment]:
            if model.get("strategy", usual) != "weighted":
                settings.router.lose("routing_strategy", "models with an order go by that alone")
            model["strategy"] = "priority"
            _put_last(model["deployments"], orders)


def _put_last(deployments: list[dict[str, Any]], orders: list[Any]) -> None:
    """LiteLLM asks those without an order when no other is left; here they would be the first."""
    last = max((order for order in orders if not is_reference(order)), default=0) + 1
    for deployment in deployments:
        deployment.setdefault("order", last)


def aliases_of(settings: Settings, names: Names) -> dict[str, str]:
    """Our section `aliases`."""
    router = settings.router
    aliases: dict[str, str] = {}
    group = router.section("model_group_alias")
    for alias in group.data:
        target = group.take(alias)
        if isinstance(target, dict):
            entry = group.section(alias)
            target = entry.take("model")
            if entry.take("hidden"):
                entry.lose("hidden", "all names are listed")
            entry.lose_rest()
        if not _is_model(target, names):
            group.lose(alias, "leads to no model that could be carried over")
        elif alias in names.models or alias == "auto" or re.search(MODEL_NAME, alias) is None:
            group.lose(alias, "is a model, too, or no name for an alias")
        else:
            aliases[alias] = target
    return aliases


def fallbacks_of(settings: Settings, names: Names) -> dict[str, dict[str, list[str]]]:
    """Our section `fallbacks`."""
    fallbacks: dict[str, dict[str, list[str]]] = {}
    for ours, theirs in _FALLBACKS.items():
        section = settings.holding(theirs)
        for path, entry in section.items(theirs):
            for model, chain in _entries(Section.of(entry, path, section.losses)):
                kept = _chain(section, (*path, model), model, chain, names)
                if kept:
                    fallbacks.setdefault(ours, {}).setdefault(model, kept)
    section = settings.holding("default_fallbacks")
    chain = section.take("default_fallbacks")
    if chain is not None:
        kept = _chain(section, (*section.path, "default_fallbacks"), "*", chain, names)
        if kept:
            fallbacks.setdefault("general", {}).setdefault("*", kept)
    return fallbacks


def _is_model(name: Any, names: Names) -> TypeGuard[str]:
    return isinstance(name, str) and name != "auto" and bool(re.search(MODEL_NAME, name)) and names.is_model(name)


def _entries(section: Section) -> Iterator[tuple[str, Any]]:
    for model in section.data:
        yield model, section.take(model)


def _chain(section: Section, path: Path, model: str, chain: Any, names: Names) -> list[str]:
    """The fallbacks that are models here, each once."""
    if model == "auto" or re.search(MODEL_PATTERN, model) is None or not names.is_known_pattern(model):
        section.losses.tell(path, "is no model that could be carried over")
        return []
    kept: list[str] = []
    for index, entry in enumerate(chain if isinstance(chain, list) else [chain]):
        name = entry.get("model") if isinstance(entry, dict) and len(entry) == 1 else entry
        if not _is_model(name, names):
            section.losses.tell((*path, index), "is no model that could be carried over")
        elif names.end_of(name) == names.end_of(model) or name in kept:
            section.losses.tell((*path, index), "is the model itself, or given twice")
        else:
            kept.append(name)
    return kept
