"""One deployment as it lives: what it may be asked, and what it is known to be like."""

from __future__ import annotations

from typing import Any

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

from proxy.domain.catalog import Deployment
from proxy.domain.errors import TransientUpstreamError, UpstreamError, kind_of
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.deployments.places import Places
from proxy.infrastructure.deployments.rests import Rests
from proxy.infrastructure.deployments.traffic import Traffic
from proxy.infrastructure.retry_budget import RetryBudget


class LiveState:
    """A deployment's state for one request's plan: DeploymentState, worked out only where planning asks."""

    __slots__ = ("_live", "_model", "_stream")

    def __init__(self, live: LiveDeployment, model: str, *, stream: bool) -> None:
        self._live = live
        self._model = model
        self._stream = stream

    @property
    def is_at_ease(self) -> bool:
        live = self._live
        return (
            live.breaker.is_calm
            and not live.is_drained
            and not live.traffic.cool_downs.until
            and not live.places.is_full
        )

    @property
    def in_flight(self) -> int:
        return self._live.places.taken + self._live.places.waiting

    @property
    def queue_full(self) -> bool:
        return self._live.places.is_full

    @property
    def latency_ewma_seconds(self) -> float | None:
        return self._live.traffic.latency(stream=self._stream).ewma_seconds

    @property
    def breaker_open_seconds(self) -> float:
        return self._live.breaker.refusing_seconds()

    @property
    def cooling_down_seconds(self) -> float:
        return self._live.traffic.cool_downs.seconds_left(self._model)

    @property
    def may_be_waited_for(self) -> bool:
        return self._live.rests.admit(self.cooling_down_seconds)

    @property
    def requests_this_minute(self) -> int:
        return self._live.traffic.minute.so_far()[0]

    @property
    def tokens_this_minute(self) -> int:
        return self._live.traffic.minute.so_far()[1]

    @property
    def drained(self) -> bool:
        return self._live.is_drained


class LiveDeployment:
    """The port of the same name. It shares nothing with other deployments but the provider's retry budget."""

    def __init__(
        self,
        deployment: Deployment,
        service: ChatCompletionClientBase,
        breaker: Breaker,
        places: Places,
        traffic: Traffic,
        budget: RetryBudget,
        *,
        cools_down: bool = True,
        rests: Rests | None = None,
    ) -> None:
        self.deployment = deployment
        self.name = deployment.name
        self.service = service
        self.breaker = breaker
        self.is_drained = False
        self.places = places
        self.traffic = traffic
        self._budget = budget
        self._cools_down = cools_down
        self.rests = rests or Rests()

    def state(self, model: str, *, stream: bool) -> LiveState:
        return LiveState(self, model, stream=stream)

    @property
    def is_idle(self) -> bool:
        return self.places.taken == 0 and self.places.waiting == 0

    async def rest(self, model: str, most_seconds: float) -> None:
        await self.rests.until_over(self.name, lambda: self.traffic.cool_downs.seconds_left(model), most_seconds)

    def enter_at_once(self) -> bool:
        if not self.places.take_at_once():
            return False
        self._entered()
        return True

    async def enter(self, most_seconds: float) -> None:
        await self.places.take(most_seconds)
        self._entered()

    def _entered(self) -> None:
        self._budget.requests += 1
        self.traffic.minute.count(requests=1)

    def leave(self) -> None:
        self._budget.requests -= 1
        self.places.leave()

    def answered(self, seconds: float, *, stream: bool) -> None:
        self.traffic.latency(stream=stream).answered(seconds)
        self.traffic.outcomes.answered()

    def failed(self, error: UpstreamError, seconds: float, model: str, *, stream: bool) -> None:
        if not isinstance(error, TransientUpstreamError):
            return  # about the request, not about the deployment
        self.traffic.outcomes.failed(kind_of(error))
        self.traffic.latency(stream=stream).failed(seconds)
        if error.retry_after_seconds and self._cools_down:
            self.traffic.cool_downs.begin(model, error.retry_after_seconds)

    def used(self, tokens: int) -> None:
        self.traffic.minute.count(tokens=tokens)

    def take_retry(self) -> bool:
        return self._budget.take()

    def give_back_retry(self) -> None:
        self._budget.give_back()

    @property
    def seems_well(self) -> bool:
        return not self.traffic.outcomes.last_failed

    def drain(self, *, is_drained: bool) -> None:
        self.is_drained = is_drained

    def p95_seconds(self, *, stream: bool) -> float | None:
        return self.traffic.latency(stream=stream).p95_seconds()

    def report(self) -> dict[str, Any]:
        """For the health report."""
        outcomes, streams, whole = self.traffic.outcomes, self.traffic.streams, self.traffic.whole_answers
        return {
            "provider": self.deployment.provider,
            "circuit_breaker": self.breaker.state,
            "consecutive_failures": self.breaker.failure_count,
            "retry_after_seconds": round(self.breaker.refusing_seconds(), 1) or None,
            "drained": self.is_drained,
            "in_flight": self.places.taken,
            "queued": self.places.waiting + self.rests.waiting,
            "success_rate": _rounded(outcomes.success_rate),
            "last_error": outcomes.last_error,
            "last_error_seconds_ago": _rounded(outcomes.last_error_seconds_ago()),
            "time_to_first_byte_seconds": {
                "streams": _rounded(streams.ewma_seconds),
                "whole_answers": _rounded(whole.ewma_seconds),
            },
            "cooling_down_seconds": {m: round(left, 1) for m, left in self.traffic.cool_downs.models().items()},
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
