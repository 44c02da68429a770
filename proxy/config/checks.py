"""What must hold between values. Whatever has the wrong shape is passed over: validation tells of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.config.fields import RESERVED_HEADERS, SECRET_HEADERS, is_header
from proxy.config.names import Names, mapping, mappings
from proxy.config.problems import Path, Problem, did_you_mean, path_text
from proxy.config.references import Expanded, as_written
from proxy.domain.catalog import AUTO

_ADDRESSES = {"openai": "https://api.openai.com/v1", "azure": "https://example.openai.azure.com/openai/v1"}
_SAME_NAME = "is called like another one: give one of them a `name`"
_TIER_CONDITIONS = ("above_input_tokens", "service_tier")
_FALLBACKS = ("general", "context_window", "content_policy")


def check(data: Any) -> list[Problem]:
    """Everything that is wrong between values of a completed configuration."""
    root = mapping(data)
    names = Names.of(root)
    return [
        *_providers(mapping(root.get("providers"))),
        *_models(root),
        *_aliases(mapping(root.get("aliases")), names),
        *_model_groups(mapping(root.get("model_groups")), names),
        *_fallbacks(mapping(root.get("fallbacks")), names),
    ]


def _providers(providers: Mapping[str, Any]) -> Iterator[Problem]:
    for name, provider in mappings(providers):
        path: Path = ("providers", name)
        kind = provider.get("kind", "openai")
        if isinstance(kind, str) and kind in _ADDRESSES and provider.get("base_url") is None:
            yield _plainly((*path, "base_url"), f"is required for the kind {kind}, like {_ADDRESSES[kind]}")
        headers = mapping(provider.get("headers"))
        for header, value in headers.items():
            where = (*path, "headers", header)
            if is_header(header, RESERVED_HEADERS):
                yield _plainly(where, "is a header that the gateway itself sets")
            elif is_header(header, SECRET_HEADERS) and isinstance(value, str) and not isinstance(value, Expanded):
                yield _plainly(where, "holds a secret, which must come from the environment: ${NAME}")
            if any(other != header and other.lower() == header.lower() for other in headers):
                yield _plainly(where, "is given twice; upper and lower case make no difference in headers")


def _models(root: Mapping[str, Any]) -> Iterator[Problem]:
    providers = mapping(root.get("providers"))
    everywhere: dict[str, tuple[Path, Any]] = {}
    for name, model in mappings(root.get("models")):
        here: dict[str, Path] = {}
        deployments = list(_deployments(model, ("models", name)))
        for path, deployment in deployments:
            yield from _deployment(name, path, deployment, providers)
            called = deployment.get("name")
            if not isinstance(called, str):
                continue
            if called in here:
                yield Problem(
                    path,
                    f"is called '{called}' like {path_text(here[called])}: give one of them a `name`",
                    plain=_SAME_NAME,
                )
                continue
            here[called] = path
            reached = tuple(deployment.get(key) for key in ("provider", "model", "timeouts", "max_concurrency"))
            first, like = everywhere.setdefault(called, (path, reached))
            if like != reached:
                yield Problem(
                    path,
                    f"is called '{called}' like {path_text(first)}, and is not the same: give one of them a `name`",
                    plain=_SAME_NAME,
                )
        if deployments and all(_is_zero(deployment.get("weight")) for _, deployment in deployments):
            yield _plainly(("models", name, "deployments"), "at least one weight must be greater than 0")


def _deployments(model: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    deployments = model.get("deployments")
    for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
        if isinstance(deployment, dict):
            yield (*path, "deployments", index), deployment


def _deployment(
    public_name: str, path: Path, deployment: Mapping[str, Any], providers: Mapping[str, Any]
) -> Iterator[Problem]:
    provider, model = deployment.get("provider"), deployment.get("model")
    if isinstance(provider, str) and provider not in providers:
        yield Problem(
            (*path, "provider"),
            f"there is no provider '{as_written(provider)}'" + did_you_mean(provider, providers.keys()),
            plain="there is no such provider",
        )
    if isinstance(model, str) and "*" in model and "*" not in public_name:
        yield Problem(
            (*path, "model"),
            f"'*' stands for what the public name's '*' matched, and '{public_name}' has none",
            plain="'*' stands for what the public name's '*' matched, and that has none",
        )
    prices = mapping(deployment.get("prices"))
    yield from _price_tiers(prices.get("tiers"), (*path, "prices", "tiers"))


def _price_tiers(tiers: Any, path: Path) -> Iterator[Problem]:
    seen: set[tuple[float | str, str]] = set()
    for index, tier in enumerate(tiers if isinstance(tiers, list) else ()):
        if not isinstance(tier, dict):
            continue
        where = (*path, index)
        above, named = tier.get("above_input_tokens"), tier.get("service_tier")
        conditions = _as_number(above), str(named)
        if above is None and named is None:
            yield _plainly(where, "needs above_input_tokens, service_tier, or both")
        elif conditions in seen:
            yield _plainly(where, "is for the same requests as one before it")
        if all(value is None for key, value in tier.items() if key not in _TIER_CONDITIONS):
            yield _plainly(where, "needs a price, like input_usd_per_1m_tokens")
        seen.add(conditions)


def _is_zero(weight: Any) -> bool:
    return not isinstance(weight, bool) and _as_number(weight) == 0


def _as_number(value: Any) -> float | str:
    """However it is spelt, also by a reference; whatever is no number as its text."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _aliases(aliases: Mapping[str, Any], names: Names) -> Iterator[Problem]:
    told: set[str] = set()
    for alias, target in aliases.items():
        path: Path = ("aliases", alias)
        if alias in names.models:
            yield _plainly(path, "is a model, too: remove one of them")
        if not isinstance(target, str) or alias in told:
            continue
        if circle := names.circle_from(alias):
            told.update(circle)
            yield Problem(path, f"leads in a circle: {' -> '.join([*circle, circle[0]])}", plain="leads in a circle")
        elif target not in names.aliases and not names.is_model(target):
            yield _no_model(path, target, names)


def _model_groups(groups: Mapping[str, Any], names: Names) -> Iterator[Problem]:
    for group, members in groups.items():
        for index, member in enumerate(members if isinstance(members, list) else ()):
            if isinstance(member, str) and member != AUTO and not names.is_known_pattern(member):
                yield _no_model(("model_groups", group, index), member, names)


def _fallbacks(fallbacks: Mapping[str, Any], names: Names) -> Iterator[Problem]:
    for kind in _FALLBACKS:
        for model, chain in mapping(fallbacks.get(kind)).items():
            path: Path = ("fallbacks", kind, model)
            if not names.is_known_pattern(model):
                yield _no_model(path, model, names)
            for index, fallback in enumerate(chain if isinstance(chain, list) else ()):
                if not isinstance(fallback, str):
                    continue
                if names.end_of(fallback) == names.end_of(model):
                    yield _plainly((*path, index), "is the model itself")
                elif not names.is_model(fallback):
                    yield _no_model((*path, index), fallback, names)


def _no_model(path: Path, named: str, names: Names) -> Problem:
    message = f"there is no model '{as_written(named)}'" + did_you_mean(named, names.all())
    return Problem(path, message, plain="there is no such model")


def _plainly(path: Path, message: str) -> Problem:
    """Of a message that says nothing of the file."""
    return Problem(path, message, plain=message)
