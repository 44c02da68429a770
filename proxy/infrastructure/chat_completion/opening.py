"""The first moments of a stream, before the client is told anything.

While only comments and role preambles have come, an error can still be answered with a plain HTTP status, retried, or
handed to another model. So they are held back until the first event that matters, for a bounded time and size.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import StreamReader

from proxy.domain.records import record
from proxy.infrastructure.chat_completion.choices import failure_in, is_free, says_something
from proxy.infrastructure.chat_completion.reported_usage import read_usage
from proxy.infrastructure.chat_completion.sse import event_data, events_from_the_start
from proxy.infrastructure.chat_completion.usage import ERROR_MARK, Chunk, error_member, parse_chunk

HOLD_SECONDS = 10.0
_HOLD_BYTES = 64 * 1024


@record
class Opening:
    """How a stream began: the bytes held back, whether it is over already, and the error if it began with one."""

    held: bytes
    ended: bool = False
    error: dict[str, Any] | None = None
    chunk: Chunk | None = None


async def read_opening(content: StreamReader, hold_seconds: float = HOLD_SECONDS) -> Opening:
    """Reads until something that the client should see has come, or the bounds are reached.

    Raises what reading raises: aiohttp.ClientError, TimeoutError for an idle connection.
    """
    held = content.read_nowait()  # often what matters came with the head
    opening = _judged(held) or (Opening(held, ended=True) if content.is_eof() else None)
    if opening is not None:
        return opening
    hold = asyncio.timeout(hold_seconds)
    try:
        async with hold:
            while len(held) < _HOLD_BYTES:
                data = await content.readany()
                if not data:
                    return Opening(held, ended=True)
                held += data
                opening = _judged(held)
                if opening is not None:
                    return opening
    except TimeoutError:
        if not hold.expired():
            raise
    return Opening(held)


def _judged(held: bytes) -> Opening | None:
    """The opening, if enough of it has come."""
    seen = _first_event_that_matters(held)
    if seen is not None:
        return Opening(held, error=_error_in(seen) if ERROR_MARK in held else None, chunk=seen)
    return Opening(held) if _has_unreadable_event(held) else None


def _first_event_that_matters(held: bytes) -> Chunk | None:
    for event in events_from_the_start(held):
        chunk = parse_chunk(event)
        if chunk is not None and (not _is_preamble(chunk) or error_member(chunk) is not None):
            return chunk
    return None


def _error_in(chunk: Chunk) -> dict[str, Any] | None:
    """Its own, or that of a choice before anything was generated."""
    if (error := error_member(chunk)) is not None:
        return error
    failure = failure_in(chunk.choices)
    if failure is None or any(says_something(choice.delta) for choice in chunk.choices or ()):
        return None
    return failure if is_free(read_usage(chunk.usage)) else None


def _has_unreadable_event(held: bytes) -> bool:
    """`[DONE]`, or data that is no chunk: not for us to judge, so the client gets it."""
    return any(event_data(event) is not None and parse_chunk(event) is None for event in events_from_the_start(held))


def _is_preamble(chunk: Chunk) -> bool:
    """A chunk that announces the role and says nothing yet."""
    for choice in chunk.choices or ():
        if choice.finish_reason is not None or says_something(choice.delta):
            return False
    return bool(chunk.choices) and failure_in(chunk.choices) is None
