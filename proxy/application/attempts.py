"""Walking a plan: one candidate after the other, within one deadline and one budget of upstream calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.application.ports import LiveDeployment
from proxy.application.upstream import UpstreamCall
from proxy.domain.errors import (
    AllProvidersFailed,
    CircuitOpen,
    DeadlineExceeded,
    DeploymentBusy,
    GatewayError,
    InvalidRequest,
    InvalidUpstreamAnswer,
    TransientUpstreamError,
    UpstreamError,
    kind_of,
    reasons_among,
)
from proxy.domain.records import record
from proxy.domain.routing import Candidate

_T = TypeVar("_T")
_NOT_FOUND = 404
_ABOUT_THE_PROVIDER = (401, 402, 403)  # its key, its credit, its rules: not those of another one
_PASSED_ON = (UpstreamError, CircuitOpen, DeploymentBusy, DeadlineExceeded, InvalidRequest)
_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Attempt:
    """One candidate's turn, as far as it has come: a place at its deployment, and the calls that are made from it."""

    candidate: Candidate
    deployment: LiveDeployment
    max_calls: int
    is_hedge: bool = False  # made beside another one that is slow
    takes_retry: bool = False  # from its provider's retry budget
    call: UpstreamCall | None = None
    queued_seconds: float = 0.0
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def calls(self) -> int:
        """Upstream calls made so far."""
        return self.call.attempts if self.call else 0


@record
class WalkLimits:
    """Bounds of a whole walk: its upstream calls together, and its deadline (of the gateway's clock).

    `hedge_seconds` says after how long another candidate is asked as well; None: never.
    """

    max_calls: int
    deadline: float
    hedge_seconds: Callable[[Candidate], float | None] = lambda _candidate: None


async def nothing_to_close(_answer: object) -> None:
    """For answers that hold nothing open."""


class Walk(Generic[_T]):
    """A request's way through its plan; `attempts` tells of it, in order, as far as it has come.

    `winner` is the attempt whose answer is the walk's, None as long as there is none.

    `perform` makes an attempt's call. Whoever is given a stream also has its place at the deployment, and leaves it
    when the stream is closed; other answers' places are left here. `discard` closes an answer that came too late.

    `after` gives the candidates to try next when an error asks for others than the plan has: a longer context window,
    another content policy. `request_id` is for the log.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        deployment_of: Callable[[Candidate], LiveDeployment],
        perform: Callable[[Attempt], Awaitable[_T]],
        limits: WalkLimits,
        *,
        stream: bool,
        request_id: str = "",
        discard: Callable[[_T], Awaitable[None]] = nothing_to_close,
        after: Callable[[Candidate, UpstreamError], Sequence[Candidate]] = lambda _candidate, _error: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.winner: Attempt | None = None
        self._waiting = deque(candidates)
        self._deployment_of = deployment_of
        self._perform = perform
        self._discard = discard
        self._limits = limits
        self._stream = stream
        self._request_id = request_id
        self._after = after
        self._clock = clock

    @property
    def calls(self) -> int:
        """Upstream calls made so far."""
        return sum(attempt.calls for attempt in self.attempts)

    async def first_answer(self) -> _T:
        """What the first candidate that answers gives.

        A client that hangs up ends the walk: cancellation is no failure.

        Raises:
            AllProvidersFailed: several candidates were asked, and all failed.
            GatewayError: the failure of the only one, or one that no other candidate would mend.
        """
        while (attempt := self._next()) is not None:
            is_hedged = bool(self._waiting) and not self._waiting[0].must_rest
            hedge_seconds = self._limits.hedge_seconds(attempt.candidate) if is_hedged else None
            try:
                if hedge_seconds is None:
                    answer = await self._take_turn(attempt)
                    self.winner = attempt
                    return answer
                return await self._race(attempt, hedge_seconds)
            except _PASSED_ON as error:
                attempt = self._failed_with(error)
                others = self._others(attempt.candidate, error)
                if others is None:
                    raise
                self._waiting = others
                if others:
                    self._warn("attempt failed, trying the next", attempt, reason=kind_of(error))
        failures = [attempt.error for attempt in self.attempts if isinstance(attempt.error, GatewayError)]
        telling = self._reasons() or failures
        if len(telling) == 1:
            raise telling[0]
        raise AllProvidersFailed(
            [attempt.candidate.model for attempt in self.attempts],
            failures,
            [attempt.deployment.name for attempt in self.attempts],
        )

    def _reasons(self) -> list[GatewayError]:
        """Why it has failed so far."""
        return reasons_among(attempt.error for attempt in self.attempts)

    def _failed_with(self, error: BaseException) -> Attempt:
        """Whose error it is: of two that raced it may be either one's."""
        return next((each for each in self.attempts if each.error is error), self.attempts[-1])

    def _next(self, *, is_hedge: bool = False) -> Attempt | None:
        """The next candidate's attempt, if calls are left for it, and retries of its provider."""
        while self._waiting and (not self.attempts or self.calls < self._limits.max_calls):
            candidate = self._waiting.popleft()
            deployment = self._deployment_of(candidate)
            attempt = Attempt(candidate, deployment, 1 if is_hedge else self._share(candidate), is_hedge=is_hedge)
            if self.attempts and (is_hedge or not deployment.seems_well):
                attempt.takes_retry = deployment.take_retry()
                if not attempt.takes_retry:
                    self._warn("retry budget is used up", attempt)
                    continue
            self.attempts.append(attempt)
            return attempt
        return None

    def _warn(self, event: str, attempt: Attempt, **facts: str) -> None:
        where = {"model": attempt.candidate.model, "deployment": attempt.deployment.name}
        _logger.warning(event, extra={"request_id": self._request_id, **where, **facts})

    async def _take_turn(self, attempt: Attempt) -> _T:
        deployment, began = attempt.deployment, self._clock()
        try:
            if attempt.candidate.must_rest or not deployment.enter_at_once():
                await self._wait_for_place(attempt, began)
            return await self._perform_in_place(attempt, deployment)
        except BaseException as error:
            attempt.error = error
            raise
        finally:
            attempt.seconds = self._clock() - began
            if attempt.takes_retry:
                deployment.give_back_retry()

    async def _wait_for_place(self, attempt: Attempt, began: float) -> None:
        deployment, deadline = attempt.deployment, self._limits.deadline
        if attempt.candidate.must_rest:
            await deployment.rest(attempt.candidate.model, deadline - began)
        await deployment.enter(deadline - self._clock())
        attempt.queued_seconds = self._clock() - began

    async def _perform_in_place(self, attempt: Attempt, deployment: LiveDeployment) -> _T:
        began, is_kept = self._clock(), False
        try:
            answer = await self._perform(attempt)
            is_kept = self._stream
        except UpstreamError as error:
            deployment.failed(error, self._clock() - began, attempt.candidate.model, stream=self._stream)
            raise
        finally:
            if not is_kept:
                deployment.leave()
        deployment.answered(self._clock() - began, stream=self._stream)
        return answer

    async def _race(self, first: Attempt, hedge_seconds: float) -> _T:
        """The faster answer of two: the second candidate is asked when the first is slow. The loser is cancelled."""
        racing = {asyncio.create_task(self._take_turn(first)): first}
        try:
            self.winner, answer = await self._winner_of(racing, hedge_seconds)
        except BaseException:
            await self._end(racing)
            raise
        try:
            await self._end(racing)
        except BaseException:  # the client has hung up meanwhile
            await self._discard(answer)
            raise
        return answer

    async def _winner_of(self, racing: dict[asyncio.Task[_T], Attempt], hedge_seconds: float) -> tuple[Attempt, _T]:
        """Who answers first, and the answer; those left in `racing` are still to be ended."""
        (first,) = racing
        await asyncio.wait(racing, timeout=hedge_seconds)
        if not first.done() and (rival := self._next(is_hedge=True)) is not None:
            racing[asyncio.create_task(self._take_turn(rival))] = rival
        while True:
            done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            task = min(done, key=lambda one: one.exception() is not None)  # a winner, if there is one
            if task.exception() is None or len(done) == len(racing):
                return racing.pop(task), task.result()
            for loser in done:
                del racing[loser]
                _tell_of_defect(loser.exception())

    async def _end(self, racing: Collection[asyncio.Task[_T]]) -> None:
        for task in racing:
            task.cancel()
        for ended in await asyncio.gather(*racing, return_exceptions=True):
            if isinstance(ended, BaseException):
                _tell_of_defect(ended)
            else:
                await self._discard(ended)

    def _share(self, candidate: Candidate) -> int:
        """How many of the calls that are left this candidate may have; more than one means that it is waited for.

        One, if another deployment serves the same model: asking that one at once is better than waiting. Else one is
        kept for each candidate that comes later.
        """
        left = self._limits.max_calls - (self.calls if self.attempts else 0)
        if not self._waiting:
            return left
        following = self._waiting[0]
        is_same_model = following.public_model == candidate.public_model and not following.must_rest
        if is_same_model and following.deployment.name != candidate.deployment.name:
            return 1
        return max(1, left - len(self._waiting))

    def _others(self, candidate: Candidate, error: GatewayError) -> deque[Candidate] | None:
        """Whom to ask after this failure; None when it would be in vain."""
        if isinstance(error, UpstreamError):
            return self._others_than_failed(candidate, error)
        if isinstance(error, InvalidRequest):
            return self._others_than_wordless(candidate)
        return deque() if isinstance(error, DeadlineExceeded) else self._waiting

    def _others_than_wordless(self, candidate: Candidate) -> deque[Candidate] | None:
        """What one dialect cannot carry, that of another deployment may. Fallbacks are for failures: if there was one
        before, they go on, and no client is told that its request is at fault."""
        if self._reasons():
            return self._elsewhere(candidate) or deque()
        return self._elsewhere(candidate, candidate.public_model)

    def _others_than_failed(self, candidate: Candidate, error: UpstreamError) -> deque[Candidate] | None:
        if special := self._after(candidate, error):
            return deque(special)
        if isinstance(error, TransientUpstreamError) or error.status == _NOT_FOUND:
            return self._waiting
        if error.status in _ABOUT_THE_PROVIDER or isinstance(error, InvalidUpstreamAnswer):
            return self._elsewhere(candidate)
        return None

    def _elsewhere(self, candidate: Candidate, public_model: str | None = None) -> deque[Candidate] | None:
        """Those of other providers, and of that model only if one is named; None if there are none."""
        others = (c for c in self._waiting if c.deployment.provider != candidate.deployment.provider)
        return deque(c for c in others if public_model in (None, c.public_model)) or None


def _tell_of_defect(error: BaseException | None) -> None:
    """Of one that nobody else will hear of, because the race goes on without who raised it."""
    if isinstance(error, Exception) and not isinstance(error, GatewayError):
        _logger.error("defect", exc_info=error)
