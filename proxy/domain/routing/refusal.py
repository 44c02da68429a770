"""What is said when nothing is left to try."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.domain.errors import (
    CircuitOpen,
    GatewayError,
    ModelNotFound,
    NoDeploymentAvailable,
    NoSuitableDeployment,
    TokenLimitExceeded,
)
from proxy.domain.routing.candidates import Dropped
from proxy.domain.routing.filters import Cause, tokens_wanted
from proxy.domain.routing.shape import RequestShape


def refusal(shape: RequestShape, dropped: Sequence[Dropped]) -> GatewayError:
    """The error for a request whose deployments were all dropped.

    As long as one of them may be back, the client is told when; else what its request would have to do without.
    """
    dropped = [each for each in dropped if each.deployment is not None]
    if not dropped:
        return ModelNotFound(shape.model)
    reasons = list(dict.fromkeys((each.name, each.reason) for each in dropped))
    waits = [each.objection.retry_after_seconds for each in dropped]
    waits_that_help = [wait for wait in waits if wait is not None]
    if waits_that_help:
        wait = min(waits_that_help)
        if {(each.name, each.objection.cause) for each in dropped} == {(dropped[0].name, Cause.BREAKER_OPEN)}:
            return CircuitOpen(dropped[0].name, wait)
        return NoDeploymentAvailable(shape.model, reasons, wait)
    windows = [
        each.deployment.context_window_tokens
        for each in dropped
        if each.deployment is not None and each.objection.cause is Cause.CONTEXT_WINDOW
    ]
    if len(windows) == len(dropped):
        return TokenLimitExceeded(tokens_wanted(shape), max(window for window in windows if window is not None))
    return NoSuitableDeployment(shape.model, reasons)
