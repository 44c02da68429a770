"""Why a deployment is not asked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from proxy.domain.catalog import Deployment
from proxy.domain.routing.shape import RequestShape
from proxy.domain.routing.state import DeploymentState

_DRAINED_RETRY_SECONDS = 30.0
_QUEUE_RETRY_SECONDS = 1.0


class Cause(StrEnum):
    """What kind of reason keeps a deployment out of a plan."""

    UNKNOWN_MODEL = "unknown_model"
    TAGS = "tags"
    CAPABILITY = "capability"
    CONTEXT_WINDOW = "context_window"
    DRAINED = "drained"
    BREAKER_OPEN = "breaker_open"
    COOLING_DOWN = "cooling_down"
    QUEUE_FULL = "queue_full"
    ASKED_ANYWAY = "asked_anyway"


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason in plain words. `retry_after_seconds` is when it may be gone, None if it stays."""

    cause: Cause
    reason: str
    retry_after_seconds: float | None = None


def objection_to(deployment: Deployment, state: DeploymentState, shape: RequestShape) -> Objection | None:
    """Why the deployment must not get the request, None if it may.

    What the deployment cannot do comes before what it cannot do at the moment: waiting would not help.
    """
    return _unsuited(deployment, shape) or _unavailable(state)


def _unsuited(deployment: Deployment, shape: RequestShape) -> Objection | None:
    if shape.tags and (absent := shape.tags - deployment.tags):
        return Objection(Cause.TAGS, f"not tagged {_listed(absent)}")
    if deployment.capabilities is not None and (missing := shape.needs - deployment.capabilities):
        return Objection(Cause.CAPABILITY, f"no {_listed(missing)}")
    window = deployment.context_window_tokens
    if window is not None and not _fits(shape, window):
        return Objection(Cause.CONTEXT_WINDOW, f"about {tokens_wanted(shape)} tokens, context window {window}")
    return None


def _unavailable(state: DeploymentState) -> Objection | None:
    if state.is_at_ease:
        return None
    if state.drained:
        return Objection(Cause.DRAINED, "drained by an operator", _DRAINED_RETRY_SECONDS)
    if (left := state.breaker_open_seconds) > 0:
        return Objection(Cause.BREAKER_OPEN, f"breaker open, {math.ceil(left)} s left", left)
    if (left := state.cooling_down_seconds) > 0:
        return Objection(Cause.COOLING_DOWN, f"cooling down, {math.ceil(left)} s left", left)
    if state.queue_full:
        return Objection(Cause.QUEUE_FULL, "queue full", _QUEUE_RETRY_SECONDS)
    return None


def tokens_wanted(shape: RequestShape) -> int:
    """The estimated prompt and the longest answer that the request allows."""
    return shape.input_tokens + (shape.max_output_tokens or 0)


def _fits(shape: RequestShape, window: int) -> bool:
    """Most prompts are so short that nobody need look at them."""
    answer = shape.max_output_tokens or 0
    return shape.most_input_tokens + answer <= window or shape.input_tokens + answer <= window


def _listed(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))
