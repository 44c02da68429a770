"""Chunked transfer coding past the parser: only what is beyond doubt, and nothing lost or changed."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.infrastructure.chat_completion.pump import Pump
from proxy.infrastructure.chunked import ends_between_chunks, unwrapped
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
    assert unwrapped(data) == contents
    assert ends_between_chunks(data)


@pytest.mark.parametrize(
    "data",
    [
        LAST,
        chunk(b"a") + LAST,
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
    assert unwrapped(data) is None
    assert not ends_between_chunks(data)


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

        def hand_on(data: bytes) -> bool:
            handed.append(data)
            return True

        pump = Pump(reply, hand_on, idle_seconds=5.0)
        take = pump._take

        def noting(piece: bytes) -> None:
            past.append(piece)
            take(piece)

        running = asyncio.ensure_future(pump.run(30.0))
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


async def test_after_a_torn_chunk_it_goes_on_past_the_parser() -> None:
    whole = chunk(b"data: torn\n\n")
    handed, past = await pumped([HEAD, whole[:5], whole[5:], chunk(b"data: b\n\n"), LAST])
    assert handed == b"data: torn\n\ndata: b\n\n"
    assert past == [b"data: b\n\n"]


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
