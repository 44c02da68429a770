"""Serving one chat completion: admit, plan, attempt, settle."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.contents import StreamingChatMessageContent

from proxy.application.attempts import first_answer
from proxy.application.exchange import Exchange
from proxy.application.ports import Ledger, PriceBook
from proxy.application.raw_call import LazyHistory, RawSettings
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import IS_LAST, Answer, UpstreamCall
from proxy.domain.chat import ChatRequest
from proxy.domain.json_bytes import replace_member
from proxy.domain.routing import Candidate, RequestShape, Surroundings, plan

_Chunks = AsyncGenerator[list[StreamingChatMessageContent], Any]


class AnswerStream:
    """An answer that has begun. Iteration gives its bytes, from the first; `answer` describes it. Close it in any case.

    The request is booked before the last bytes are given out, so that whoever has them has been accounted for.
    """

    def __init__(
        self,
        answer: Answer,
        opening: StreamingChatMessageContent,
        chunks: _Chunks,
        call: UpstreamCall,
        exchange: Exchange,
    ) -> None:
        self.answer = answer
        self._opening: StreamingChatMessageContent | None = opening
        self._chunks = chunks
        self._call = call
        self._exchange = exchange

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        content, self._opening = self._opening, None
        if content is None:
            content = (await anext(self._chunks))[0]
        if content.metadata.get(IS_LAST):
            self._exchange.settle()
            await self._exchange.durable()
        chunk: bytes = content.inner_content or b""
        return chunk

    async def aclose(self) -> None:
        """Ends the upstream call, if it still runs."""
        self._call.hang_up()
        await self._chunks.aclose()


@dataclass(frozen=True, slots=True)
class KernelOrchestrator:
    """Runs requests through the kernel's chat completion service. One for the whole process; keeps no request's state.

    `request_timeout_seconds` bounds everything up to the first byte of an answer: all attempts, waits and fallbacks.
    """

    kernel: Kernel
    service_id: str
    provider_name: str
    surroundings: Surroundings
    ledger: Ledger
    prices: PriceBook
    unpriced: UnpricedModels
    request_timeout_seconds: float
    clock: Callable[[], float] = time.monotonic

    def exchange(self, request_id: str, client_is_gone: Callable[[], bool]) -> Exchange:
        """The books of one request. Entering it raises LedgerFull when its row could not be promised."""
        return Exchange(self.ledger, self.prices, self.unpriced, self.provider_name, request_id, client_is_gone)

    async def complete(self, exchange: Exchange, request: ChatRequest, headers: Mapping[str, str]) -> Answer:
        """The whole answer of the first candidate that gives one.

        Raises:
            TokenLimitExceeded, UpstreamError, CircuitOpen, AllProvidersFailed
        """
        deadline = self.clock() + self.request_timeout_seconds

        async def attempt(candidate: Candidate) -> Answer:
            call = self._call(exchange, request, candidate, headers, deadline)
            await exchange.durable()
            contents = await self._service.get_chat_message_contents(
                LazyHistory.reading(request.messages), RawSettings.carrying(call, request)
            )
            return self._answer(call, contents[0].inner_content, contents[0].metadata)

        return await first_answer(self._candidates(request), attempt)

    async def stream(self, exchange: Exchange, request: ChatRequest, headers: Mapping[str, str]) -> AnswerStream:
        """The answer of the first candidate that begins one; errors before that are raised as in `complete`."""
        deadline = self.clock() + self.request_timeout_seconds

        async def attempt(candidate: Candidate) -> AnswerStream:
            call = self._call(exchange, request, candidate, headers, deadline)
            await exchange.durable()
            chunks = self._service.get_streaming_chat_message_contents(
                LazyHistory.reading(request.messages), RawSettings.carrying(call, request)
            )
            opening = (await anext(chunks))[0]
            return AnswerStream(self._answer(call, None, opening.metadata), opening, chunks, call, exchange)

        return await first_answer(self._candidates(request), attempt)

    def _candidates(self, request: ChatRequest) -> Sequence[Candidate]:
        return plan(RequestShape(request), self.surroundings).candidates

    @property
    def _service(self) -> ChatCompletionClientBase:
        return self.kernel.get_service(self.service_id, type=ChatCompletionClientBase)

    def _call(
        self,
        exchange: Exchange,
        request: ChatRequest,
        candidate: Candidate,
        headers: Mapping[str, str],
        deadline: float,
    ) -> UpstreamCall:
        body = request.body
        if candidate.model != request.model:
            body = replace_member(body, "model", json.dumps(candidate.model).encode())
        call = UpstreamCall(
            body=body,
            model=candidate.model,
            deadline=deadline,
            headers=headers,
            request_id=exchange.request_id,
            blamed=exchange.blamed,
        )
        exchange.calling(candidate, call)
        return call

    def _answer(self, call: UpstreamCall, body: bytes | None, metadata: Mapping[str, Any]) -> Answer:
        return Answer(
            body=body or b"",
            content_type=metadata["content_type"],
            headers=metadata["headers"],
            model=metadata["model"] or call.model,
            provider=self.provider_name,
            attempts=call.attempts,
        )
