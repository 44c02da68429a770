"""Walking a plan: one candidate after the other until one answers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from proxy.domain.errors import (
    AllProvidersFailed,
    CircuitOpen,
    DeadlineExceeded,
    GatewayError,
    TransientUpstreamError,
    UpstreamError,
    kind_of,
)
from proxy.domain.routing import Candidate

_T = TypeVar("_T")
_NOT_FOUND = 404
_logger = logging.getLogger(__name__)


async def first_answer(candidates: Sequence[Candidate], attempt: Callable[[Candidate], Awaitable[_T]]) -> _T:
    """The result of the first candidate that answers.

    A plan of one raises that candidate's own error. A client that hangs up ends the walk: cancellation is no failure.

    Raises:
        AllProvidersFailed: there were several candidates, and all failed.
        GatewayError: a failure that another model would not mend.
    """
    failures: list[GatewayError] = []
    for candidate in candidates:
        try:
            return await attempt(candidate)
        except (UpstreamError, CircuitOpen, DeadlineExceeded) as error:
            failures.append(error)
            if isinstance(error, DeadlineExceeded) and len(failures) > 1:
                break
            if len(candidates) == 1 or not _another_model_may_do(error):
                raise
            _logger.warning("model failed, trying the next", extra={"model": candidate.model, "reason": kind_of(error)})
    raise AllProvidersFailed([candidate.model for candidate in candidates[: len(failures)]], failures)


def _another_model_may_do(error: GatewayError) -> bool:
    """Outages, and a model that the upstream no longer has."""
    if isinstance(error, TransientUpstreamError | CircuitOpen):
        return True
    return isinstance(error, UpstreamError) and error.status == _NOT_FOUND
