"""Framing of event streams, and cutting them between events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.infrastructure.chat_completion.sse import EventAligner, event_data, says_done, split_events

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

MEBIBYTE = 1024 * 1024
ENDS = ["\n", "\r\n", "\r"]
DONE = b"data: [DONE]\n\n"


def encoded(lines: Sequence[str], end: str) -> bytes:
    return end.join(lines).encode()


_text = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
_line = st.one_of(
    _text.map(lambda text: "data: " + text),
    _text.map(lambda text: "data:" + text),
    _text.map(lambda text: ": " + text),
    st.sampled_from(["event: ping", "id: 7", "retry: 100", "data", ":", 'data: {"content":"日本語"}']),
)
_event = st.lists(_line, min_size=1, max_size=4)
_events = st.lists(_event, max_size=6)
_end = st.sampled_from(ENDS)


def whole(events: Sequence[Sequence[str]], end: str) -> bytes:
    return b"".join(encoded([*lines, "", ""], end) for lines in events)


# split_events


@_property
@given(_events, st.lists(_line, max_size=2), _end)
def test_events_are_split_in_every_framing(events: list[list[str]], started: list[str], end: str) -> None:
    rest = encoded(started, end)
    assert split_events(whole(events, end) + rest) == ([encoded(lines, end) for lines in events], rest)


@pytest.mark.parametrize(
    ("text", "events", "rest"),
    [
        (b"", [], b""),
        (b"data: 1", [], b"data: 1"),
        (b"data: 1\n", [], b"data: 1\n"),
        (b"data: 1\n\n", [b"data: 1"], b""),
        (b"data: 1\r\n", [], b"data: 1\r\n"),
        (b"data: 1\r\n\r", [], b"data: 1\r\n\r"),
        (b"data: 1\r\n\r\n", [b"data: 1"], b""),
        (b"data: 1\r", [], b"data: 1\r"),
        (b"data: 1\r\rdata: 2", [b"data: 1"], b"data: 2"),
        (b"data: 1\n\r\ndata: 2\r\n\n", [b"data: 1", b"data: 2"], b""),
        (b"data: 1\ndata: 2\n\n", [b"data: 1\ndata: 2"], b""),
    ],
)
def test_examples_of_splitting(text: bytes, events: list[bytes], rest: bytes) -> None:
    assert split_events(text) == (events, rest)


# event_data


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b"data:  x", b" x"),
        (b"data:", b""),
        (b"data: ", b""),
        (b"data: a\ndata: b", b"a\nb"),
        (b"data: a\r\ndata:\r\ndata: b", b"a\n\nb"),
        (b"data: a\rdata: b", b"a\nb"),
        (b"event: error\ndata: a\nid: 3\n: said\nretry: 9", b"a"),
        (b"\ndata: a", b"a"),
        (b": OPENROUTER PROCESSING", None),
        (b":data: x", None),
        (b" data: x", None),
        (b"database: x", None),
        (b"event: ping", None),
        (b"", None),
    ],
)
def test_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert event_data(event) == data


@_property
@given(st.lists(_text, min_size=1), _end)
def test_data_lines_are_joined_with_a_line_feed(lines: list[str], end: str) -> None:
    event = encoded([f"data: {line}" for line in lines], end)
    assert event_data(event) == "\n".join(lines).encode()


# says_done


@pytest.mark.parametrize(
    "events",
    [
        DONE,
        b"data:[DONE]\n\n",
        b"data: [DONE]\r\n\r\n",
        b"data: [DONE]\r\r",
        b'data: {"a":1}\n\ndata: [DONE]\n\n',
        b'data: {"a":1}\r\rdata: [DONE]\r\r',
        b"event: done\ndata: [DONE]\n\n",
        b"data: [DONE]\n\n: bye\n\n",
        b"data: " + b"x" * 1000 + b"\n\n" + DONE,
        b"x" * 50 + b"\n\n" + DONE,
    ],
)
def test_done_is_seen_at_the_end(events: bytes) -> None:
    assert says_done(events)


@pytest.mark.parametrize(
    "events",
    [
        b"",
        b'data: {"a":1}\n\n',
        b": data: [DONE]\n\n",
        b": [DONE]\n\n",
        b'data: {"content":"data: [DONE]"}\n\n',
        b'data: {"content":"\\ndata: [DONE]"}\n\n',
        b"data: done\n\n",
        b"data: [done]\n\n",
        b"xdata: [DONE]\n\n",
        b'data: {"content":"' + b"x" * 20 + b'data: [DONE]"}\n\n',
    ],
)
def test_done_inside_something_else_is_not_done(events: bytes) -> None:
    assert not says_done(events)


@pytest.mark.parametrize("length", range(40, 70))
def test_the_place_where_the_search_begins_is_no_line_start(length: int) -> None:
    """Text that ends like the mark stays text, wherever the last bytes that are looked at happen to begin."""
    assert not says_done(b"data: " + b"x" * length + b'data: [DONE]"}' + b"x" * (50 - 16) + b"\n\n")


# EventAligner


def pieces(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[start:end] for start, end in pairwise(places)]


def is_between_events(passed: bytes) -> bool:
    """Whether an event that is added now is an event of its own: no field of another one is pending."""
    lines = re.split(rb"\r\n|\n|\r", passed)
    *complete, unfinished = lines
    pending = complete[len(complete) - complete[::-1].index(b"") :] if b"" in complete else complete
    return unfinished == b"" and all(line.startswith(b":") for line in pending)


_cuts = st.lists(st.integers(0, 2000), max_size=12)


@_property
@given(_events, st.lists(_line, max_size=2), _end, _cuts)
@example([[": ping", "data: 1"]], [], "\n", [len(b": ping\ndata: 1\n")])
def test_any_split_of_a_stream_comes_out_unchanged_and_cut_between_events(
    events: list[list[str]], started: list[str], end: str, cuts: list[int]
) -> None:
    stream = whole(events, end) + encoded(started, end)
    aligner, passed = EventAligner(), b""
    for piece in pieces(stream, cuts):
        passed += aligner.push(piece)
        assert is_between_events(passed)
    assert passed + aligner.rest() == stream


@_property
@given(st.binary(max_size=60) | st.text("a:\r\n", max_size=30).map(str.encode), _cuts)
def test_not_a_byte_is_lost_whatever_the_bytes(stream: bytes, cuts: list[int]) -> None:
    aligner = EventAligner()
    passed = b"".join([aligner.push(piece) for piece in pieces(stream, cuts)])
    assert passed + aligner.rest() == stream


@_property
@given(_events, _end, _cuts)
def test_complete_events_do_not_wait(events: list[list[str]], end: str, cuts: list[int]) -> None:
    """Once an event's last byte has come, all of it is out. What may stay behind is the blank line after a comment."""
    aligner = EventAligner()
    for piece in pieces(whole(events, end), cuts):
        aligner.push(piece)
    assert aligner.rest().strip(b"\r\n") == b""


@pytest.mark.parametrize("end", ENDS)
def test_byte_by_byte(end: str) -> None:
    stream = whole([["data: 1"], [": ping"], ["event: x", "data: 2"]], end)
    aligner = EventAligner()
    outputs = [out for place in range(len(stream)) if (out := aligner.push(stream[place : place + 1]))]
    assert b"".join(outputs) == stream
    assert outputs[0].startswith(b"data: 1")
    assert any(b"event: x" in out and b"data: 2" in out for out in outputs)


def test_a_character_cut_in_two_stays_whole() -> None:
    event = "data: 日\n\n".encode()
    aligner = EventAligner()
    assert aligner.push(event[:7]) == b""
    assert aligner.push(event[7:]) == event


def test_events_go_on_and_the_beginning_of_the_next_waits() -> None:
    aligner = EventAligner()
    assert aligner.push(b"data: 1\n\ndata: 2\n\nda") == b"data: 1\n\ndata: 2\n\n"
    assert aligner.rest() == b"da"
    assert aligner.push(b"ta: 3\n") == b""
    assert aligner.push(b"\n") == b"data: 3\n\n"
    assert aligner.rest() == b""


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_framings_may_be_mixed(first: str, second: str) -> None:
    """A proxy on the way adds its comments with line ends of its own."""
    events = whole([["data: 1"]], first) + whole([["data: 2"]], second)
    aligner = EventAligner()
    assert aligner.push(events + b"da") == events
    assert aligner.rest() == b"da"


@pytest.mark.parametrize("comment", [b": ping\n", b": ping\r\n", b":\n", b": a\n: b\n"])
def test_a_comment_line_goes_on_at_once(comment: bytes) -> None:
    aligner = EventAligner()
    assert aligner.push(comment) == comment
    assert aligner.push(b"data: 1\n\n" + comment) == b"data: 1\n\n" + comment


def test_half_a_comment_waits() -> None:
    aligner = EventAligner()
    assert aligner.push(b": pi") == b""
    assert aligner.push(b"ng\n") == b": ping\n"


def test_a_comment_inside_an_event_waits_with_it() -> None:
    aligner = EventAligner()
    assert aligner.push(b"data: 1\n: ping\n") == b""
    assert aligner.push(b"\n") == b"data: 1\n: ping\n\n"


def test_a_comment_takes_no_part_of_the_next_event_along() -> None:
    """Else an error event, added when the upstream breaks off here, would become part of that half event."""
    aligner = EventAligner()
    assert is_between_events(aligner.push(b": ping\ndata: 1\n"))


def test_a_colon_inside_an_event_makes_no_comment() -> None:
    aligner = EventAligner()
    assert aligner.push(b"data: 1\n") == b""
    assert aligner.push(b": no comment, but this event's\n") == b""


def test_an_event_of_a_mebibyte_waits_and_a_longer_one_does_not() -> None:
    aligner = EventAligner()
    longest = b"data: " + b"x" * (MEBIBYTE - 6)
    assert aligner.push(longest) == b""
    assert aligner.push(b"x") == longest + b"x"
    assert aligner.rest() == b""


def test_events_before_an_overlong_one_count_not_to_its_length() -> None:
    aligner = EventAligner()
    events = b"data: 1\n\n" * (MEBIBYTE // 8)
    assert aligner.push(events + b"data: half") == events
    assert aligner.rest() == b"data: half"


def test_a_large_event_in_many_reads_comes_out_whole() -> None:
    event = b'data: {"image":"' + b"A" * (MEBIBYTE - 100) + b'"}\n\n'
    aligner = EventAligner()
    outputs = [aligner.push(event[place : place + 65_536]) for place in range(0, len(event), 65_536)]
    assert [out for out in outputs if out] == [event]


def test_nothing_to_push_and_nothing_left() -> None:
    aligner = EventAligner()
    assert aligner.push(b"") == b""
    assert aligner.rest() == b""
