"""Retries and the circuit breaker around calls to one deployment.

The retry loop is aiohttp-retry's. It is entered when the first attempt has failed: building it costs a tenth of a
request, and most need none. Before each attempt the breaker is asked, so a breaker that opens ends all other loops at
once. A request counts as one failure when its retries are used up, so a blip never opens the breaker. Not counted at
all: what says nothing about the upstream's health (the client's hang-up, 4xx answers, 429 among them: who says so is
well, and one busy model must not close a provider's others) and what comes too late to matter (the outcome of a call
that began before the breaker last opened).
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiohttp_retry import RetryClient, RetryOptionsBase

from proxy.application.upstream import UpstreamCall
from proxy.domain.errors import DeadlineExceeded, TransientUpstreamError, UpstreamError
from proxy.domain.raised import forget_where
from proxy.infrastructure.breaker import Breaker, Permit
from proxy.infrastructure.retry_budget import RetryBudget

_logger = logging.getLogger(__name__)
_TOO_MANY_REQUESTS = 429
_TOO_LATE = "The request's time was up before the provider could be asked."
_Reply = TypeVar("_Reply")


@dataclass(frozen=True, slots=True)
class Timing:
    """How time passes, and chance: arguments, so that tests need not wait. `clock` and `sleep` are in seconds."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: waits of base, 2x base, 4x base, … each shortened at random by at most half.

    A Retry-After longer than that is waited for instead, unless it passes the cap: then the error goes to the client,
    who can wait better than an open request can.
    """

    max_retries: int = 3
    base_seconds: float = 1.0
    retry_after_cap_seconds: float = 30.0

    def delay_seconds(self, attempt: int, retry_after_seconds: float | None, jitter: float) -> float | None:
        """The wait after the failure of attempt number `attempt` (1, 2, …); None: do not try again.

        `jitter` is a random number from 0 to 1.
        """
        if retry_after_seconds is not None and retry_after_seconds > self.retry_after_cap_seconds:
            return None
        backoff = self.base_seconds * 2.0 ** (attempt - 1) * (1.0 - jitter / 2.0)
        return max(backoff, retry_after_seconds or 0.0)


class Resilience:
    """Runs calls to one deployment under its breaker and retry policy; shared by all requests."""

    def __init__(
        self,
        breaker: Breaker,
        policy: RetryPolicy,
        timing: Timing | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.breaker = breaker
        self.policy = policy
        self.timing = timing or Timing()
        self.budget = budget or RetryBudget(min_retries=sys.maxsize)

    async def run(
        self,
        attempt: Callable[[], Awaitable[_Reply]],
        deadline: float,
        blamed: set[str] | None = None,
        max_attempts: int | None = None,
        *,
        call: UpstreamCall | None = None,
    ) -> _Reply:
        """The first good response of `attempt`, which raises UpstreamError for any other.

        `blamed` names the breakers that have counted this request already; a request with fallbacks to one deployment
        is one failure, too. `max_attempts` is what is left for this call of the request's attempts; the policy's limit
        holds as well. `call` is what all this is for: the log names its request.

        Raises:
            DeadlineExceeded: no attempt could begin in time.
            CircuitOpen: the breaker refused an attempt.
            UpstreamError: the last failure, when trying again is useless, used up, or would pass the deadline
                (of the timing's clock).
        """
        if self.timing.clock() >= deadline:
            raise DeadlineExceeded(_TOO_LATE)
        permit = self.breaker.allow()
        try:
            response = await attempt()
        except TransientUpstreamError as error:
            tries = _Tries(self, attempt, deadline, max_attempts, permit, error, call.request_id if call else None)
            return await self._retried(tries, set() if blamed is None else blamed)
        except BaseException:
            self.breaker.release(permit)
            raise
        self.breaker.succeeded(permit)
        return response

    async def _retried(self, tries: _Tries[_Reply], blamed: set[str]) -> _Reply:
        """The loop, from the failure of its first attempt on."""
        client = RetryClient(client_session=tries, retry_options=_Schedule(self, tries), logger=_SILENT)  # type: ignore[arg-type]
        try:
            response: _Reply = await client.post("")  # type: ignore[assignment]  # what `tries` gives, whatever it is
            self.breaker.succeeded(tries.permit)
        except TransientUpstreamError as error:
            error.retries_exhausted = not tries.is_denied
            self._blame(tries.permit, error, blamed)
            raise
        finally:
            self.breaker.release(tries.permit)
            if tries.is_retrying:
                self.budget.give_back()
        return response

    def _blame(self, permit: Permit, error: TransientUpstreamError, blamed: set[str]) -> None:
        if error.status == _TOO_MANY_REQUESTS:
            return
        name = str(self.breaker.name)
        if permit.is_probe or name not in blamed:
            self.breaker.failed(permit, error)
        blamed.add(name)


class _Tries(Generic[_Reply]):
    """Stands where RetryClient expects a session: its first `request` is the one that was made, and has failed."""

    __slots__ = (
        "_attempt",
        "_resilience",
        "deadline",
        "is_denied",
        "is_first",
        "is_retrying",
        "last_error",
        "max_attempts",
        "permit",
        "request_id",
        "wait_seconds",
    )

    def __init__(
        self,
        resilience: Resilience,
        attempt: Callable[[], Awaitable[_Reply]],
        deadline: float,
        max_attempts: int | None,
        permit: Permit,
        error: TransientUpstreamError,
        request_id: str | None,
    ) -> None:
        self.request_id = request_id
        self._resilience = resilience
        self._attempt = attempt
        self.deadline = deadline
        most = resilience.policy.max_retries + 1
        self.max_attempts = most if max_attempts is None else max(1, min(most, max_attempts))
        self.is_retrying = False
        self.is_denied = False  # a retry that would have been made, but for the budget
        self.permit = permit
        self.last_error: UpstreamError = error
        self.wait_seconds = 0.0
        self.is_first = True

    async def request(self, _method: str, _url: str, **_ignored: Any) -> _Reply:
        if self.is_first:
            self.is_first = False
            raise self.last_error
        forget_where(self.last_error)
        if self.wait_seconds:
            await self._resilience.timing.sleep(self.wait_seconds)
        if self._resilience.timing.clock() >= self.deadline:
            raise DeadlineExceeded(_TOO_LATE)
        self.permit = self._resilience.breaker.allow()
        try:
            return await self._attempt()
        except UpstreamError as error:
            self.last_error = error
            raise

    def may_retry(self) -> bool:
        """Takes the request's place in the retry budget, unless it has one."""
        if not self.is_retrying:
            self.is_retrying = self._resilience.budget.take()
            self.is_denied = not self.is_retrying
        return self.is_retrying


class _Schedule(RetryOptionsBase):
    """Tells RetryClient which failures to retry, and `_Tries` how long to wait before."""

    def __init__(self, resilience: Resilience, tries: _Tries[Any]) -> None:
        super().__init__(
            attempts=tries.max_attempts,
            statuses=(),
            exceptions={TransientUpstreamError},
            retry_all_server_errors=False,
        )
        self._resilience = resilience
        self._tries = tries

    def get_timeout(self, attempt: int, response: object = None) -> float:  # noqa: ARG002
        """Plans the next attempt, or raises the error that makes it pointless."""
        error = self._tries.last_error
        policy, timing = self._resilience.policy, self._resilience.timing
        wait = policy.delay_seconds(attempt, error.retry_after_seconds, timing.jitter())
        is_in_vain = error.is_final or self._tries.permit.is_probe
        if wait is None or is_in_vain or timing.clock() + wait >= self._tries.deadline:
            raise error
        if not self._tries.may_retry():
            _logger.warning("retry budget is used up", extra=self._facts(error))
            raise error
        _logger.warning(
            "retrying upstream call",
            extra={
                **self._facts(error),
                "retry": attempt,
                "max_retries": self._tries.max_attempts - 1,
                "wait_seconds": round(wait, 3),
            },
        )
        self._tries.wait_seconds = wait
        return 0.0

    def _facts(self, error: UpstreamError) -> dict[str, Any]:
        """Which request failed where, and why."""
        return {
            "request_id": self._tries.request_id,
            "deployment": self._resilience.breaker.name,
            "reason": error.kind,
        }


_SILENT = logging.getLogger(f"{__name__}.aiohttp_retry")
_SILENT.setLevel(logging.WARNING)
