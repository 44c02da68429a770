"""Server-sent events, as far as a relay must understand them.

The relay moves bytes, not events. It looks at events only at the beginning of a stream (is this an error?) and at its
end (what did it cost, was it complete?), and in between makes sure that what it passes on ends between two events, so
that an error event can be added when the upstream breaks off inside one. Framing follows the WHATWG HTML standard,
section 9.2: lines end with LF, CRLF or CR, a blank line ends an event, a line that begins with a colon is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE_END = re.compile(rb"\r\n|\n|\r")
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_COMMENT_LINES = re.compile(rb"(?::[^\r\n]*(?:\r\n|\n|\r))+")
_DONE = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
DONE_MARK = b"[DONE]"
_BEFORE_MARK_BYTES = len(b"\ndata: ")
HOLD_BYTES = 1024 * 1024
_ENDINGS = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n")


def split_events(text: bytes) -> tuple[list[bytes], bytes]:
    """The complete events of `text` (each without its ending blank line), and the incomplete rest."""
    *events, rest = EVENT_END.split(text)
    return events, rest


def events_from_the_end(text: bytes) -> Iterator[bytes]:
    """The complete events of `text`, the last one first. Of long texts usually the last few are all that matters."""
    if b"\r" in text:
        yield from reversed(split_events(text)[0])
        return
    end = text.rfind(b"\n\n")
    while end >= 0:
        before = text.rfind(b"\n\n", 0, end)
        yield text[before + 2 if before >= 0 else 0 : end]
        end = before


def events_from_the_start(text: bytes) -> Iterator[bytes]:
    """The complete events of `text`, as far as they are asked for."""
    start = 0
    for end in EVENT_END.finditer(text):
        yield text[start : end.start()]
        start = end.end()


def event_data(event: bytes) -> bytes | None:
    """The event's data, lines joined with LF; None for an event without any, such as a comment."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = []
    for line in _LINE_END.split(event):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
    return b"\n".join(lines) if lines else None


def says_done(chunk: bytes) -> bool:
    """Whether one of these whole events is `[DONE]`. Texts of models may hold the word, too."""
    at = chunk.find(DONE_MARK)
    while at >= 0:
        if _DONE.search(chunk, max(0, at - _BEFORE_MARK_BYTES), at + len(DONE_MARK)):
            return True
        at = chunk.find(DONE_MARK, at + 1)
    return False


class EventAligner:
    """Cuts a byte stream between events without changing a byte: what is incomplete waits for the next read.

    An event longer than `hold_bytes` does not wait to be complete; None: every event does. `held` is what waits.
    """

    def __init__(self, hold_bytes: int | None = HOLD_BYTES) -> None:
        self.held = b""
        self._hold_bytes = hold_bytes

    def push(self, data: bytes) -> bytes:
        """The bytes up to the last event boundary seen so far; may be empty."""
        if self.held:
            data, self.held = self.held + data, b""
        if data.endswith(_ENDINGS):
            return data
        boundary = _last_boundary(data)
        if comments := _COMMENT_LINES.match(data, boundary):
            boundary = comments.end()  # they keep connections alive and belong to no event: on with them
        if self._hold_bytes is not None and len(data) - boundary > self._hold_bytes:
            boundary = len(data)
        self.held = data[boundary:]
        return data[:boundary]

    def rest(self) -> bytes:
        """What was held back when the stream ended: an event that its upstream did not finish."""
        return self.held


def _last_boundary(data: bytes) -> int:
    return max((at + len(ending) for ending in _ENDINGS if (at := data.rfind(ending)) >= 0), default=0)
