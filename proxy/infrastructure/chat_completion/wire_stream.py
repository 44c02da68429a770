"""A stream from an upstream, from its first byte that matters to its honest end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from aiohttp import ClientError

from proxy.application.upstream import Sink, UpstreamCall
from proxy.domain.chat import AnswerFacts
from proxy.domain.errors import StreamBroken
from proxy.infrastructure.chat_completion.opening import Opening
from proxy.infrastructure.chat_completion.pump import Pump
from proxy.infrastructure.chat_completion.reading import text_of
from proxy.infrastructure.chat_completion.sse import DONE_MARK, HOLD_BYTES, EventAligner, says_done
from proxy.infrastructure.chat_completion.stream_usage import without_usage_chunk
from proxy.infrastructure.chat_completion.told_errors import without_secrets
from proxy.infrastructure.chat_completion.usage import ERROR_MARK, StreamTail
from proxy.infrastructure.posting import DirectReply, Reply

_AFTER_DONE_SECONDS = 1.0
_BAD_GATEWAY = 502
_END = b"\n\n"


@dataclass(frozen=True, slots=True)
class StreamRules:
    """How streams of one upstream end, how long they may take, and what it says without its secrets."""

    provider: str
    idle_timeout_seconds: float
    total_timeout_seconds: float
    done_marker: bool
    redacted: Callable[[str], str]


class WireStream:
    """An open stream: `opening` first, then iterate. Bytes come out between events, in order, none changed but for
    secrets in events that tell of an error.

    With `hides_usage` the one event is left out that came because the gateway asked for usage. Iteration raises
    StreamBroken when the upstream stops before `[DONE]`, or, where the rules know no such marker, before any finish
    reason.
    """

    def __init__(
        self,
        rules: StreamRules,
        call: UpstreamCall,
        response: Reply,
        opening: Opening,
        *,
        hides_usage: bool = False,
    ) -> None:
        self.headers = response.headers
        self.model = text_of(opening.chunk.model) if opening.chunk else None
        self.done = False
        self._rules = rules
        self._tail = StreamTail()
        self._response = response
        self._aligner = EventAligner(hold_bytes=None if call.whole_events else HOLD_BYTES)
        self._told = False
        self._pending = b""  # what completes the answer, when it came while pumping
        self._has_hung_up = False
        self._ends: float | None = None  # the time for what follows `[DONE]`
        self._hides_usage = hides_usage
        self._deadline = time.monotonic() + rules.total_timeout_seconds
        if isinstance(response, DirectReply):
            response.keep_time(rules.total_timeout_seconds, rules.idle_timeout_seconds)
        self.opening = self._passing(opening.held)
        call.answer = self._tail

    def facts(self) -> AnswerFacts:
        """What the stream has said of itself so far."""
        return self._tail.facts()

    def is_just_done(self) -> bool:
        """True once: for the bytes with which the answer is complete."""
        first, self._told = self.done and not self._told, self._told or self.done
        return first

    def is_all(self) -> bool:
        """Whether what was given out by now is all that will be."""
        return self.done and not self._aligner.held and self._response.content.at_eof()

    def raise_told_error(self) -> None:
        """Raises the error that the stream told of, if it did, though it went on to its end."""
        if self.facts().error_message is not None:
            raise self._broken("told of an error", "error")

    async def pump(self, sink: Sink) -> None:
        """Hands on what comes, as it comes, up to where iterating goes on: with the bytes that complete the answer, or
        however else the stream ends. Does nothing on connections that cannot be watched.

        Raises what the sink raises.
        """
        response = self._response
        if self.done or not isinstance(response, DirectReply):
            return
        passing, write, feed, may_hold_usage = self._passing, sink.write, self._tail.feed, self._hides_usage
        aligner = self._aligner

        def hand_on(data: bytes, chunk: bytes | None) -> bool:
            if (
                chunk is not None
                and data.endswith(_END)
                and not aligner.held
                and DONE_MARK not in data
                and ERROR_MARK not in data
                and not (may_hold_usage and b'"usage"' in data)
            ):  # nearly always: nothing to hold back, to end with, to leave out or to blot out
                feed(data)
                takes_more = write(data, chunk)
            else:
                whole = passing(data)
                if self.done:
                    self._pending = whole
                    return False
                takes_more = write(whole) if whole else True
            if not takes_more:
                response.hold()  # in this very call, or as much again would be read
            return takes_more

        try:
            while not self.done:
                if sink.is_full:
                    await sink.drained()
                response.go_on()
                await Pump(response, hand_on).run()
                if not sink.is_full:
                    return
        finally:
            response.go_on()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._pending:
            pending, self._pending = self._pending, b""
            return pending
        while True:
            data = await (self._read_after_done() if self.done else self._read())
            if not data:
                return self._last_bytes()
            whole = self._passing(data)
            if whole:
                return whole

    def _passing(self, data: bytes) -> bytes:
        whole = self._aligner.push(data)
        if whole:
            self._tail.feed(whole)
            if not self.done:
                self.done = says_done(whole)
            whole = without_secrets(whole, self._rules.redacted)
            if self._hides_usage:
                return without_usage_chunk(whole)
        return whole

    async def _read(self) -> bytes:
        if time.monotonic() > self._deadline:
            raise self._broken_by_length()
        try:
            return await self._response.content.readany()
        except TimeoutError as problem:
            if isinstance(self._response, DirectReply) and self._response.is_out_of_time:
                raise self._broken_by_length() from problem
            raise self._broken(f"sent nothing for {self._rules.idle_timeout_seconds:g} s", "timeout") from problem
        except (ClientError, OSError) as problem:
            raise self._broken("broke off", "connection") from problem

    async def _read_after_done(self) -> bytes:
        """Whatever follows `[DONE]`, if it comes soon: the client need not wait for the upstream to hang up, nor for
        comments that keep the connection alive."""
        if self._has_hung_up or self._response.content.at_eof():
            return b""
        now = time.monotonic()
        if self._ends is None:
            self._ends = now + _AFTER_DONE_SECONDS
        try:
            if now < self._ends:
                async with asyncio.timeout(self._ends - now):
                    return await self._response.content.readany()
        except (TimeoutError, ClientError, OSError):
            pass
        self._has_hung_up = True
        self._response.close()
        return b""

    def _last_bytes(self) -> bytes:
        """What came after the end of the last event: some servers do not end their last one."""
        rest, self._aligner = self._aligner.rest(), EventAligner(HOLD_BYTES)
        if self.done and not rest:
            raise StopAsyncIteration
        if not self.done:
            whole = self._passing(rest + _END) if rest else b""
            if not self._is_complete():
                if whole and self._tail.facts().error_message is not None:
                    return whole  # the error that it tells: its end is ours, as another would follow
                raise self._broken("ended before it was complete", "truncated")
            self.done = True
            rest = whole[: -len(_END)]
        return rest

    def _is_complete(self) -> bool:
        """Whether the answer is, now that the upstream has ended the connection in good order."""
        facts = self._tail.facts()
        finished = facts.finish_reason is not None and facts.error_message is None
        return self.done or (finished and not self._rules.done_marker)

    def _broken_by_length(self) -> StreamBroken:
        return self._broken(f"did not finish within {self._rules.total_timeout_seconds:g} s", "timeout")

    def _broken(self, what: str, kind: str) -> StreamBroken:
        self._response.close()
        facts, provider = self._tail.facts(), self._rules.provider
        said = facts.error_message or facts.choice_error
        message = f"The stream from {provider} {what}." if said is None else self._rules.redacted(said)
        error = StreamBroken(message, status=_BAD_GATEWAY, kind=f"stream_{kind}", provider=provider)
        error.told = facts.error_message is not None  # a choice's error is nothing that SDKs raise
        return error
