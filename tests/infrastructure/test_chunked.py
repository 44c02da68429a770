"""Chunked transfer coding past the parser: only what is beyond doubt, and nothing lost or changed."""

from __future__ import annotations

import asyncio
import itertools

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.infrastructure.chat_completion.pump import Pump
from proxy.infrastructure.chunked import bytes_missing, is_size, may_become_size, unwrapped
from proxy.infrastructure.posting import DirectReply
from tests.infrastructure.test_posting import Raw, posting

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("data", "contents"),
    [
        (chunk(b"data: x\n\n"), b"data: x\n\n"),
        (chunk(b"a") + chunk(b"\r\n5\r\n"), b"a\r\n5\r\n"),
        (b"A\r\n0123456789\r\n", b"0123456789"),
    ],
)
def test_whole_chunks_are_unwrapped(data: bytes, contents: bytes) -> None:
    assert unwrapped(data) == (contents, len(data))


@pytest.mark.parametrize(
    "data",
    [
        LAST,
        chunk(b"abc")[:-1],
        b"3\r\nabcX\r\n",
        b"3;ext=1\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"3\nabc\n",
        b"ffffffffff\r\n",
        b"\r\n",
        b"text",
    ],
)
def test_all_else_is_left_to_the_parser(data: bytes) -> None:
    assert unwrapped(data) == (b"", 0)
    assert unwrapped(chunk(b"whole") + data) == (b"whole", len(chunk(b"whole")))


@given(size=st.integers(1, 2**33))
def test_a_size_as_it_is_usually_written_is_told_from_all_others(size: int) -> None:
    text = b"%x" % size
    assert is_size(text, size)
    assert is_size(text.upper(), size)
    for other in (
        b"0" + text,
        b"+" + text,
        b" " + text,
        text + b" ",
        b"0x" + text,
        text[:-1],
        text + b"_",
        b"%x" % (size + 1),
    ):
        assert not is_size(other, size)
    assert not is_size(b"+" + text[1:], size)
    assert not is_size(text[:-1] + b" ", size)


def test_the_last_chunk_is_not_one_of_size_nothing() -> None:
    assert not is_size(b"0", 0)
    assert not is_size(b"", 0)


@pytest.mark.parametrize(
    ("data", "missing"), [(b"3\r\n", 5), (b"3\r\nabc\r", 1), (b"3\r\nabc\r\n", 0), (LAST, 0), (b"x", 0)]
)
def test_what_a_torn_chunk_lacks_is_known(data: bytes, missing: int) -> None:
    assert bytes_missing(data) == missing


@pytest.mark.parametrize(
    ("data", "may"), [(b"1f", True), (b"1f\r", True), (b"1f\r\n", False), (b"", False), (b"g", False)]
)
def test_a_size_may_come_torn(data: bytes, may: bool) -> None:
    assert may_become_size(data) is may


class Streaming(Raw):
    """Sends its answer's parts one by one, each when the one before was taken."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in self.answers:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.close()


async def pumped(parts: list[bytes]) -> tuple[bytes, list[bytes]]:
    """What a pump hands on of a stream that comes in these parts, and what of it came past the parser."""
    handed: list[bytes] = []
    past: list[bytes] = []
    async with posting(Streaming(*parts)) as post:
        reply = await post(b"", {}, stream=True)
        assert isinstance(reply, DirectReply)
        watch = reply.watch

        def hand_on(data: bytes, _chunk: bytes | None) -> bool:
            handed.append(data)
            return True

        pump = Pump(reply, hand_on)
        take = pump._take

        def noting(piece: bytes, framed: bytes | None) -> None:
            assert framed in (None, chunk(piece))
            past.append(piece)
            take(piece, framed)

        running = asyncio.ensure_future(pump.run())
        await asyncio.sleep(0)
        if not running.done():
            watch(pump._changed, noting)
        await running
        handed.append(await reply.content.read())
    return b"".join(handed), past


async def test_a_provider_that_sends_an_event_a_chunk_costs_no_parsing() -> None:
    events = [b"data: %d\n\n" % number for number in range(8)]
    handed, past = await pumped([HEAD + chunk(events[0]), *(chunk(event) for event in events[1:]), LAST])
    assert handed == b"".join(events)
    assert past == events[1:]


async def test_an_answer_that_only_looks_chunked_is_not_unwrapped() -> None:
    body = chunk(b"abc") * 3
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    handed, past = await pumped([head, *[chunk(b"abc")] * 3])
    assert (handed, past) == (body, [])


@pytest.mark.parametrize("cut", range(1, 18))
async def test_after_a_torn_chunk_it_goes_on_past_the_parser(cut: int) -> None:
    torn, b, c = chunk(b"data: torn\n\n"), chunk(b"data: b\n\n"), chunk(b"data: c\n\n")
    handed, past = await pumped([HEAD, torn[:cut], torn[cut:] + b, c, LAST])
    assert handed == b"data: torn\n\ndata: b\n\ndata: c\n\n"
    assert b"".join(past).endswith(b"data: b\n\ndata: c\n\n")


async def test_an_answer_that_comes_in_one_piece_is_read_in_one() -> None:
    events = [b"data: %d\n\n" % number for number in range(60)]
    async with posting(Streaming(HEAD + b"".join(map(chunk, events)) + LAST)) as post:
        reply = await post(b"", {}, stream=True)
        assert await reply.content.readany() == b"".join(events)
        assert reply.content.at_eof()


@pytest.mark.parametrize("cut", [b"5", b"5\r", b"5\r\n", b"5\r\nab", b"", b"xyz\r\n", b"5\r\nabcdefgh\r\n"])
async def test_a_stream_that_breaks_off_is_an_error(cut: bytes) -> None:
    async with posting(Streaming(HEAD + chunk(b"data: a\n\n"), cut)) as post:
        reply = await post(b"", {}, stream=True)
        assert await reply.content.readexactly(9) == b"data: a\n\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.content.read()
        reply.close()


async def test_who_reads_slowly_holds_the_sender_back_and_gets_all() -> None:
    big = [bytes([65 + number]) * 100_000 for number in range(26)]
    async with posting(Streaming(HEAD, *map(chunk, big), LAST)) as post:
        reply = await post(b"", {}, stream=True)
        assert isinstance(reply, DirectReply)
        await asyncio.sleep(0.2)
        read = b""
        while data := await reply.content.readany():
            read += data
    assert read == b"".join(big)


async def test_a_head_that_ends_otherwise_is_left_to_the_parser() -> None:
    """The parser takes bare line feeds; then the first empty line of the usual kind is in the body."""
    head = HEAD.replace(b"\r\n", b"\n")
    handed, past = await pumped([head + chunk(b"a\r\n\r\nb"), chunk(b"c"), LAST])
    assert (handed, past) == (b"a\r\n\r\nbc", [])


@given(
    contents=st.lists(st.binary(min_size=1, max_size=40) | st.just(b"3\r\nabc\r\n"), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
@settings(max_examples=25, deadline=None)
def test_however_a_stream_is_torn_all_of_it_arrives_once_and_in_order(contents: list[bytes], cuts: list[int]) -> None:
    text = b"".join(map(chunk, contents)) + LAST
    places = sorted({cut % len(text) for cut in cuts} | {0, len(text)})
    parts = [text[start:end] for start, end in itertools.pairwise(places)]
    handed, _ = asyncio.run(pumped([HEAD, *parts]))
    assert handed == b"".join(contents)
