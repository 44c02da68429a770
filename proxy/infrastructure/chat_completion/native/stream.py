"""A connector's streamed contents as bytes for the client, from their opening to `[DONE]`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Self

from semantic_kernel.contents import StreamingChatMessageContent

from proxy.domain.errors import GatewayError, StreamBroken, UpstreamError
from proxy.infrastructure.chat_completion.native.answers import ChunkWriter
from proxy.infrastructure.chat_completion.native.transport import Attempt

Contents = AsyncGenerator[list[StreamingChatMessageContent], Any]
_BAD_GATEWAY = 502
_AFTER_FINISH_SECONDS = 1.0


class Truncated(Exception):
    """The contents ended without a finish reason."""


class NativeStream:
    """An open stream: `begin` first, then iterate. Each read is whole events.

    Iteration raises StreamBroken when the provider stops before it has said why.
    """

    def __init__(
        self,
        contents: Contents,
        writer: ChunkWriter,
        attempt: Attempt,
        explain: Callable[[BaseException], GatewayError],
        provider: str,
    ) -> None:
        self.writer = writer
        self._attempt = attempt
        self.done = False
        self._contents = contents
        self._explain = explain
        self._provider = provider
        self._pending: asyncio.Task[bytes] | None = None

    async def begin(self, hold_seconds: float) -> None:
        """Waits until there is something to say, but no longer than that once the provider has begun to answer.

        Raises what the connector raises: the client has not been told anything yet.
        """
        self._pending = asyncio.create_task(self._next_events())
        responded = asyncio.create_task(self._attempt.responded.wait())
        try:
            await asyncio.wait({self._pending, responded}, return_when=asyncio.FIRST_COMPLETED)
            if not self._pending.done():
                await asyncio.wait({self._pending}, timeout=hold_seconds)
        finally:
            responded.cancel()
        if self._pending.done():
            self._pending.result()

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the provider's answer."""
        return self._attempt.response.headers if self._attempt.response is not None else {}

    def opening(self) -> bytes:
        """The first event, if nothing came in time."""
        return b"" if self._pending is None or self._pending.done() else self.writer.opening()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        pending, self._pending = self._pending, None
        if self.done and pending is None:  # what `begin` waited for may be all there is
            raise StopAsyncIteration
        try:
            return await (pending or self._next_events())
        except Truncated as problem:
            raise self._broken(None) from problem
        except Exception as problem:
            raise self._broken(self._explain(problem)) from problem

    async def _next_events(self) -> bytes:
        """Some events; the last ones once the contents are at their end."""
        while (content := await self._next_content()) is not None:
            if events := self.writer.write(content):
                return events
        if self.writer.finish_reason is None:
            raise Truncated
        self.done = True
        return self.writer.closing()

    async def _next_content(self) -> StreamingChatMessageContent | None:
        """Once the answer is complete, what follows is waited for shortly, and its troubles are nobody's."""
        is_complete = self.writer.finish_reason is not None
        try:
            async with asyncio.timeout(_AFTER_FINISH_SECONDS if is_complete else None):
                return (await anext(self._contents))[0]
        except StopAsyncIteration:
            return None
        except Exception:
            if not is_complete:
                raise
            return None

    def _broken(self, error: GatewayError | None) -> StreamBroken:
        """The provider's own words, if it has said any."""
        message, kind = f"The stream from {self._provider} ended before it was complete.", "truncated"
        details: Mapping[str, Any] = {}
        if isinstance(error, UpstreamError):
            message, kind, details = error.message, error.kind, error.details
        return StreamBroken(
            message, status=_BAD_GATEWAY, kind=f"stream_{kind}", provider=self._provider, details=details
        )

    async def aclose(self) -> None:
        """Ends the connector's work, whatever it is doing. The connection is hung up on before."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await self._contents.aclose()
