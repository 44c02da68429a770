"""Deployments, routes and requests for tests of routing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from proxy.api.openai.envelope import read_chat_request
from proxy.domain.catalog import Catalog, Deployment, ModelRoute
from proxy.domain.pricing import ModelPricing
from proxy.domain.routing import (
    Candidate,
    DeploymentState,
    ModelPolicy,
    RequestShape,
    StateSnapshot,
    Surroundings,
)


def deployment(name: str, **members: Any) -> Deployment:
    return Deployment(**{"name": name, "provider": name, "model": "m", **members})


def route(*deployments: Deployment | str, name: str = "m", **members: Any) -> ModelRoute:
    behind = tuple(each if isinstance(each, Deployment) else deployment(each) for each in deployments)
    return ModelRoute(name, behind, **members)


def candidate(model: str, reason: str = "for a test", *, is_fallback: bool = False) -> Candidate:
    """As in a gateway without configuration."""
    return Candidate(deployment("OpenRouter", model=model), model, reason, is_fallback)


def asking(
    model: str = "m", text: str = "Hello", *, tags: frozenset[str] = frozenset(), **members: Any
) -> RequestShape:
    """The shape of a request as it comes over the wire."""
    payload = {"model": model, "messages": [{"role": "user", "content": text}], **members}
    return RequestShape(read_chat_request(json.dumps(payload).encode()), tags)


def around(
    catalog: Catalog | ModelRoute,
    states: Mapping[str, DeploymentState] | None = None,
    *,
    policy: ModelPolicy | None = None,
    prices: Mapping[str, ModelPricing] | None = None,
    chance: Callable[[], float] | None = None,
) -> Surroundings:
    """`states` are by the deployment's name; who is not there is unused."""
    known = states or {}
    table = prices or {}
    return Surroundings(
        catalog if isinstance(catalog, Catalog) else Catalog([catalog]),
        policy or ModelPolicy(),
        lambda each: known.get(each.name, StateSnapshot()),
        lambda: table,
        chance or random.Random(1).random,  # noqa: S311  # the same chance each time
    )
