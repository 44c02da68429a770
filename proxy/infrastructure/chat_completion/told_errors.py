"""Errors that an upstream tells in an answer that goes on to the client, without the secrets that it says in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.infrastructure.chat_completion.reading import FALSY
from proxy.infrastructure.chat_completion.sse import EVENT_END
from proxy.infrastructure.chat_completion.usage import ERROR_MARK, Chunk, error_member, parse_chunk


def without_secrets(events: bytes, redacted: Callable[[str], str]) -> bytes:
    """These whole events, with `redacted` applied to those that tell of an error. No other byte changes.

    Costs next to nothing if there is none.
    """
    if ERROR_MARK not in events:
        return events
    kept, start = [], 0
    for end in EVENT_END.finditer(events):
        kept.append(_told(events[start : end.start()], redacted) + end.group())
        start = end.end()
    return b"".join((*kept, events[start:]))


def _told(event: bytes, redacted: Callable[[str], str]) -> bytes:
    chunk = parse_chunk(event) if ERROR_MARK in event else None
    return _clean(event, redacted) if chunk is not None and _tells_error(chunk) else event


def _tells_error(chunk: Chunk) -> bool:
    """Its own or a choice's, however that one ended."""
    return error_member(chunk) is not None or any(bytes(choice.error) not in FALSY for choice in chunk.choices or ())


def errors_without_secrets(body: bytes, errors: Iterable[bytes], redacted: Callable[[str], str]) -> bytes:
    """A whole answer, with `redacted` applied to the errors that stand in it. No other byte changes."""
    for error in errors:
        body = body.replace(error, _clean(error, redacted))
    return body


def _clean(text: bytes, redacted: Callable[[str], str]) -> bytes:
    return redacted(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
