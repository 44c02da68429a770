"""Serving one chat completion: admit, plan, walk the plan, settle."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

from proxy.application.answer_stream import AnswerStream
from proxy.application.attempts import Attempt, Walk, WalkLimits, nothing_to_close
from proxy.application.booking import Accounting
from proxy.application.cohort import Cohort
from proxy.application.exchange import Exchange
from proxy.application.observing import NOBODY, ExchangeObserver
from proxy.application.ports import Ledger, LiveDeployment
from proxy.application.raw_call import LazyHistory, RawSettings
from proxy.application.runtime import Runtime, RuntimeSource
from proxy.application.upstream import Answer, UpstreamCall
from proxy.domain.catalog import Deployment
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import UpstreamError
from proxy.domain.json_bytes import replace_member, without_member
from proxy.domain.rate_limits import TokenEstimate
from proxy.domain.routing import Candidate, RequestShape, Surroundings, failure_kind, may_come_after, plan, plan_after

_Answer = TypeVar("_Answer")
_deployment_of: Callable[[Candidate], Deployment] = attrgetter("deployment")
TAGS_HEADER = "x-gateway-tags"


@dataclass(frozen=True, slots=True)
class KernelOrchestrator:
    """Runs requests through the kernel's chat completion services; one for the whole process, without state of any."""

    runtime: RuntimeSource
    ledger: Ledger
    accounting: Accounting
    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    observer: ExchangeObserver = NOBODY
    cohort: Cohort = field(default_factory=Cohort)

    def exchange(self, request_id: str, client_is_gone: Callable[[], bool]) -> Exchange:
        """The books of one request. Entering it raises LedgerFull when its row could not be promised."""
        return Exchange(self.ledger, self.accounting, request_id, client_is_gone, self.observer)

    def complete(self, exchange: Exchange, request: ChatRequest, headers: Mapping[str, str]) -> Awaitable[Answer]:
        """The whole answer of the first candidate that gives one.

        Raises:
            what planning raises (proxy.domain.routing.plan), UpstreamError, NotServing, AllProvidersFailed
        """
        return _Run(self, exchange, request, headers).complete()

    def stream(self, exchange: Exchange, request: ChatRequest, headers: Mapping[str, str]) -> Awaitable[AnswerStream]:
        """The answer of the first candidate that begins one; errors before that are raised as in `complete`."""
        return _Run(self, exchange, request, headers).stream()

    def dry_run(self, request: ChatRequest, headers: Mapping[str, str]) -> Mapping[str, Any]:
        """What would be tried for a request now, as JSON has it, without asking anybody. Raises as planning does."""
        runtime = self.runtime.current()
        planned = plan(_shape(request, headers), self.surroundings(runtime, stream=request.stream))
        return {
            **planned.explain(),
            "max_attempts": runtime.max_attempts,
            "request_timeout_seconds": runtime.request_timeout_seconds,
            "deployments": {name: runtime.deployments[name].report() for name in planned.deployment_names()},
        }

    def surroundings(self, runtime: Runtime, *, stream: bool) -> Surroundings:
        """What plans depend on at this moment."""
        return Surroundings(
            catalog=runtime.catalog,
            policy=runtime.policy,
            states=lambda deployment: runtime.state_of(deployment, stream=stream),
            prices=self.accounting.prices.current,
            random=self.random,
        )


class _Run:
    """One request under way: its plan, and the calls that are made for it."""

    def __init__(
        self, orchestrator: KernelOrchestrator, exchange: Exchange, request: ChatRequest, headers: Mapping[str, str]
    ) -> None:
        self._orchestrator = orchestrator
        self._cohort = orchestrator.cohort
        self._exchange = exchange
        self._request = request
        self._headers = headers
        self._runtime = orchestrator.runtime.current()
        self._deadline = orchestrator.clock() + self._runtime.request_timeout_seconds
        self._shape = _shape(request, headers)
        self._surroundings = orchestrator.surroundings(self._runtime, stream=request.stream)
        self._plan = plan(self._shape, self._surroundings)
        exchange.plan = self._plan

    def complete(self) -> Awaitable[Answer]:
        cohort = self._cohort

        async def perform(attempt: Attempt) -> Answer:
            call = await self._begin(attempt)
            contents = await self._service(attempt).get_chat_message_contents(
                LazyHistory.reading(self._request), RawSettings.carrying(call, self._request)
            )
            if cohort.has_several:
                await cohort.on_its_way_back()
            return self._answer(attempt, contents[0].inner_content, contents[0].metadata)

        return self._walk(perform)

    def stream(self) -> Awaitable[AnswerStream]:
        async def perform(attempt: Attempt) -> AnswerStream:
            call = await self._begin(attempt)
            chunks = self._service(attempt).get_streaming_chat_message_contents(
                LazyHistory.reading(self._request), RawSettings.carrying(call, self._request)
            )
            opening = (await anext(chunks))[0]
            answer = self._answer(attempt, None, opening.metadata)
            return AnswerStream(answer, opening, chunks, attempt, self._exchange)

        return self._walk(perform, AnswerStream.aclose)

    async def _walk(
        self,
        perform: Callable[[Attempt], Awaitable[_Answer]],
        discard: Callable[[_Answer], Awaitable[None]] = nothing_to_close,
    ) -> _Answer:
        deployments = self._runtime.deployments
        walk = Walk(
            self._plan.candidates,
            lambda candidate: deployments[candidate.deployment.name],
            perform,
            WalkLimits(self._runtime.max_attempts, self._deadline, self._hedge_seconds(deployments)),
            stream=self._request.stream,
            request_id=self._exchange.request_id,
            discard=discard,
            after=self._after,
            clock=self._orchestrator.clock,
        )
        self._runtime.uses.count += 1  # before anything is waited for: a reload closes deployments that nobody may ask
        try:
            admission = self._exchange.admission
            if admission.needs_money:
                at_once = 1 if self._plan.route.hedge_after is None else 2
                needed = self._most_cost(admission.estimate), at_once, self._exchange.started_at
                if not admission.set_aside_at_once(*needed):
                    await admission.set_aside(*needed)
            if self._cohort.has_several:
                await self._cohort.on_its_way()
            self._exchange.walked = walk.attempts
            return await walk.first_answer()
        finally:
            self._runtime.uses.count -= 1
            if walk.winner is not None and walk.winner.call is not None:
                self._exchange.answered_by(walk.winner.call)

    def _most_cost(self, estimate: TokenEstimate) -> int:
        """Picodollars that a call for the request may cost at most."""
        deployments = list(map(_deployment_of, self._plan.candidates))
        if self._runtime.catalog.fallbacks:
            deployments += may_come_after(self._plan, self._runtime.catalog)
        models = self._shape.models if "models" in self._request.members else ()
        return self._orchestrator.accounting.most_cost(deployments, models, estimate)

    def _hedge_seconds(self, deployments: Mapping[str, LiveDeployment]) -> Callable[[Candidate], float | None]:
        after = self._plan.route.hedge_after
        if after != "p95":
            return lambda _candidate: after
        return lambda candidate: deployments[candidate.deployment.name].p95_seconds(stream=self._request.stream)

    def _after(self, candidate: Candidate, error: UpstreamError) -> Sequence[Candidate]:
        """Models for what this one's deployments refuse: a prompt too long for them, or its content."""
        kind = failure_kind(error)
        if kind is None or candidate.is_fallback:
            return ()
        attempted = [attempt.candidate for attempt in self._exchange.walked]
        return plan_after(kind, self._plan, attempted, self._shape, self._surroundings).candidates

    async def _begin(self, attempt: Attempt) -> UpstreamCall:
        """The call to make, noted in the books."""
        candidate = attempt.candidate
        model = candidate.deployment.model
        call = UpstreamCall(
            body=self._body_for(candidate, model),
            model=model,
            deadline=self._deadline,
            headers=self._headers,
            request_id=self._exchange.request_id,
            blamed=self._exchange.blamed,
            max_attempts=attempt.max_calls,
        )
        beside = self._running_call() if len(self._exchange.walked) > 1 else None
        if beside is None:
            self._exchange.calling(candidate, call)
        else:
            self._exchange.hedging(candidate, call, beside)
        attempt.call = call
        if self._cohort.has_several:
            await self._cohort.on_its_way()
        if self._exchange.waits_for_disk:
            await self._exchange.durable()
        return call

    def _running_call(self) -> UpstreamCall | None:
        """A call that was made already and has not failed.

        Not always that of whose turn came first: who waits in a deployment's queue is overtaken by a hedge.
        """
        return next((each.call for each in self._exchange.walked if each.call and each.error is None), None)

    def _body_for(self, candidate: Candidate, model: str) -> bytes:
        """The client's, but for the model's name, and for the list of `models` where the gateway walks it."""
        request = self._request
        body = request.body
        if model != request.model:
            body = replace_member(body, "model", json.dumps(model).encode())
        if "models" in request.members and not candidate.deployment.walks_models:
            body = without_member(body, "models")
        return body

    def _service(self, attempt: Attempt) -> ChatCompletionClientBase:
        """The kernel's own `get_service` goes through all services at each call."""
        service = self._runtime.kernel.services[attempt.deployment.name]
        if not isinstance(service, ChatCompletionClientBase):
            raise TypeError(f"the kernel's service '{attempt.deployment.name}' completes no chats")
        return service

    def _answer(self, attempt: Attempt, body: bytes | None, metadata: Mapping[str, Any]) -> Answer:
        candidate = attempt.candidate
        return Answer(
            body=body or b"",
            content_type=metadata["content_type"],
            headers=metadata["headers"],
            model=metadata["model"] or candidate.model,
            provider=candidate.deployment.provider,
            attempts=attempt.calls,
        )


def _shape(request: ChatRequest, headers: Mapping[str, str]) -> RequestShape:
    """With the tags that a deployment must have, if the client names any: `x-gateway-tags: eu, cheap`.

    The header may come several times; looking a name up would give the first one only.
    """
    if TAGS_HEADER not in headers:
        return RequestShape(request)
    lines = (value for name, value in headers.items() if name.lower() == TAGS_HEADER)
    return RequestShape(request, frozenset(tag for line in lines for each in line.split(",") if (tag := each.strip())))
