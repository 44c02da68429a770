"""Asking for a stream's usage in a client's stead, and keeping the chunk that comes of it from that client.

Both are edits that the gateway declares: nothing else of the request changes but `stream_options.include_usage`, and
nothing else of the answer but that one event. Servers that send `"usage": null` with all other chunks are left to do
so: OpenAI's schema has clients expect it there, and taking it out would be rewriting every chunk.
"""

from __future__ import annotations

import re

import msgspec

from proxy.domain.json_bytes import add_member, replace_member
from proxy.infrastructure.chat_completion.reading import Malformed, decode
from proxy.infrastructure.chat_completion.sse import EVENT_END
from proxy.infrastructure.chat_completion.usage import error_member, has_usage, parse_chunk

_OPTIONS, _INCLUDE = "stream_options", "include_usage"
_ASKING = b'{"include_usage":true}'
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class _Request(msgspec.Struct):
    stream_options: msgspec.Raw = msgspec.Raw(b"null")


class _Options(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw()


_requests = msgspec.json.Decoder(_Request)
_options = msgspec.json.Decoder(_Options)


def asking_for_usage(body: bytes) -> bytes | None:
    """The request with `stream_options.include_usage` true; None if it is already, or is not to be understood."""
    if _OPTIONS.encode() not in body:
        return add_member(body, _OPTIONS, _ASKING)
    try:
        options = bytes(decode(_requests, body).stream_options)
        if options == b"null":
            asking = _ASKING
        else:
            include = bytes(decode(_options, options).include_usage)
            if include == b"true":
                return None
            asking = replace_member(options, _INCLUDE, b"true") if include else add_member(options, _INCLUDE, b"true")
    except Malformed:
        return None  # the server will say what is wrong with it
    try:
        return replace_member(body, _OPTIONS, asking)
    except KeyError:  # it was in some text
        return add_member(body, _OPTIONS, asking)


def without_usage_chunk(events: bytes) -> bytes:
    """These whole events without the one that holds nothing but the usage. Costs next to nothing if there is none."""
    at = events.find(b'"usage"')
    if at < 0:
        return events
    before = -1 if b"\r" in events else events.rfind(b"\n\n", 0, at)
    start = before + 2 if before >= 0 else 0
    if _NO_CHOICES.search(events, start) is None:
        return events
    kept = [events[:start]]
    for end in EVENT_END.finditer(events, start):
        if not _is_usage_chunk(events[start : end.start()]):
            kept.append(events[start : end.end()])
        start = end.end()
    return b"".join((*kept, events[start:]))


def _is_usage_chunk(event: bytes) -> bool:
    if _NO_CHOICES.search(event) is None:
        return False
    chunk = parse_chunk(event)
    return chunk is not None and chunk.choices == [] and has_usage(chunk) and error_member(chunk) is None
