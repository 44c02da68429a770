"""An answer that comes in pieces, and the books that are closed before its last one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Self

from semantic_kernel.contents import StreamingChatMessageContent

from proxy.application.attempts import Attempt
from proxy.application.exchange import Exchange
from proxy.application.upstream import IS_ALL, IS_LAST, PUMP, Answer, Pumping, Sink

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
        attempt: Attempt,
        exchange: Exchange,
    ) -> None:
        self.answer = answer
        self._opening: StreamingChatMessageContent | None = opening
        self.is_all = bool(opening.metadata.get(IS_ALL))  # the first bytes are the last ones, too
        self._pump: Pumping | None = opening.metadata.get(PUMP)
        self._chunks = chunks
        self._attempt: Attempt | None = attempt
        self._exchange = exchange

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        content, self._opening = self._opening, None
        if content is None:
            content = (await anext(self._chunks))[0]
        if content.metadata.get(IS_LAST):
            self._exchange.settle()
            if self._exchange.waits_for_disk:
                await self._exchange.durable()
        chunk: bytes = content.inner_content or b""
        return chunk

    async def pump(self, sink: Sink) -> None:
        """Once its first bytes were taken: writes as many of the others as need no attention. Go on iterating."""
        if self._pump is not None:
            await self._pump(sink)

    async def aclose(self) -> None:
        """Ends the upstream call, if it still runs, and leaves its place at the deployment."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.deployment.leave()
        if attempt.call is not None:
            attempt.call.hang_up()
        await self._chunks.aclose()
