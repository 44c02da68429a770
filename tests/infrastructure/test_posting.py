"""Posting over aiohttp's connections directly: what goes over the wire, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from proxy.infrastructure.connector import DirectConnector
from proxy.infrastructure.http import client_session
from proxy.infrastructure.posting import DirectReply, Post, header_lines, poster

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}"
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Raw:
    """A server that plays bytes, and keeps what it was sent, by connection."""

    def __init__(self, *answers: bytes, closes: bool = False, holds: bool = False) -> None:
        self.answers = list(answers)
        self.heard: list[list[bytes]] = []
        self.hung_up = asyncio.Event()
        self.serving: list[asyncio.Task[None]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self._closes = closes
        self._holds = holds

    async def gone(self) -> None:
        """Leave no connection behind."""
        await asyncio.gather(*self.serving)
        for writer in self.writers:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.append(asyncio.ensure_future(self.serve(reader, writer)))
        self.writers.append(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine: list[bytes] = []
        self.heard.append(mine)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                mine.append(head + await reader.readexactly(length))
                if not self._holds:
                    writer.write(self.answers.pop(0))
                if self._closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()


@asynccontextmanager
async def posting(
    raw: Raw, idle_seconds: float = 5.0, connector: aiohttp.BaseConnector | None = None
) -> AsyncIterator[Post]:
    server = await asyncio.start_server(raw.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sessions = client_session(5.0, idle_seconds) if connector is None else aiohttp.ClientSession(connector=connector)
    async with server, sessions as session:
        yield poster(session, URL(f"http://127.0.0.1:{port}/v1/x?a=b"), {"Authorization": "Bearer k"})
    await raw.gone()


async def test_the_head_says_all_that_was_asked_for_and_the_body_goes_as_it_is() -> None:
    raw = Raw(ANSWER)
    async with posting(raw) as post:
        reply = await post(b'{"a":1}', {"traceparent": "00-x"})
        assert (reply.status, reply.content_type, await reply.content.read()) == (200, "application/json", b"{}")
    head, _, body = raw.heard[0][0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/x?a=b HTTP/1.1"
    assert {line.partition(":")[0] for line in lines} == {
        "Host", "Accept", "Authorization", "traceparent", "Content-Length"
    }  # fmt: skip
    assert body == b'{"a":1}'


async def test_a_connection_whose_answer_was_read_is_used_again() -> None:
    """And so this connector makes connections that tell of themselves: aiohttp's way of choosing them has not moved."""
    raw = Raw(ANSWER, ANSWER)
    async with posting(raw) as post:
        for _ in range(2):
            reply = await post(b"{}", {})
            assert isinstance(reply, DirectReply)
            await reply.content.read()
    assert [len(mine) for mine in raw.heard] == [2]


async def test_while_a_reply_is_held_nothing_is_read() -> None:
    raw = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ANSWER)
    async with posting(raw) as post:
        reply = await post(b"{}", {}, stream=True)
        assert isinstance(reply, DirectReply)
        assert await reply.content.readany() == b"abc"
        reply.hold()
        raw.writers[0].write(b"3\r\ndef\r\n0\r\n\r\n")
        await asyncio.sleep(0.1)
        assert reply.content.read_nowait() == b""
        reply.go_on()
        assert await reply.content.read() == b"def"
        reply.hold()  # it is over: the connection is the next one's
        await (await post(b"{}", {})).content.read()


async def test_the_connection_used_last_is_used_next() -> None:
    raw = Raw(*[ANSWER] * 5)
    async with posting(raw) as post:
        first, second = await asyncio.gather(post(b"1", {}), post(b"2", {}))
        await first.content.read()
        await second.content.read()
        for _ in range(3):
            await (await post(b"again", {})).content.read()
    assert sorted(len(mine) for mine in raw.heard) == [1, 4]


async def test_a_connection_that_nobody_has_used_for_long_is_not_used_again() -> None:
    raw = Raw(ANSWER, ANSWER)
    async with posting(raw, connector=DirectConnector(keep_seconds=0.05)) as post:
        await (await post(b"{}", {})).content.read()
        await asyncio.wait_for(raw.hung_up.wait(), 5)
        await (await post(b"{}", {})).content.read()
    assert [len(mine) for mine in raw.heard] == [1, 1]


async def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again() -> None:
    raw = Raw(ANSWER, ANSWER, closes=True)
    async with posting(raw) as post:
        for _ in range(2):
            await (await post(b"{}", {})).content.read()
            await asyncio.sleep(0.05)
    assert [len(mine) for mine in raw.heard] == [1, 1]


async def test_an_answer_that_nobody_has_asked_for_is_nobodys() -> None:
    raw = Raw(ANSWER, ANSWER.replace(b"{}", b"[]"))
    async with posting(raw) as post:
        await (await post(b"{}", {})).content.read()
        raw.writers[0].write(ANSWER.replace(b"{}", b"!!"))
        await asyncio.wait_for(raw.hung_up.wait(), 5)
        assert await (await post(b"{}", {})).content.read() == b"[]"


async def test_two_answers_to_one_request_end_the_connection() -> None:
    raw = Raw(ANSWER + ANSWER.replace(b"{}", b"!!"), ANSWER.replace(b"{}", b"[]"))
    async with posting(raw) as post:
        assert await (await post(b"{}", {})).content.read() == b"{}"
        assert await (await post(b"{}", {})).content.read() == b"[]"
    assert [len(mine) for mine in raw.heard] == [1, 1]


async def test_each_request_has_a_time_limit_of_its_own_for_the_head() -> None:
    """Whatever the ones before it on the same connection had."""
    raw = Raw(ANSWER, b"")
    async with posting(raw) as post:
        await (await post(b"{}", {}, most_seconds=60)).content.read()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(post(b"{}", {}, most_seconds=0.05), 5)
    assert [len(mine) for mine in raw.heard] == [2]


async def test_a_time_limit_ends_with_its_request() -> None:
    raw = Raw(ANSWER, ANSWER)
    async with posting(raw) as post:
        await (await post(b"{}", {}, most_seconds=0.05)).content.read()
        await asyncio.sleep(0.1)
        await (await post(b"{}", {}, most_seconds=60)).content.read()
    assert [len(mine) for mine in raw.heard] == [2]


async def test_a_reply_that_gave_its_connection_back_does_not_silence_the_next() -> None:
    changes: list[None] = []
    raw = Raw(ANSWER, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    async with posting(raw) as post:
        first = await post(b"{}", {})
        await first.content.read()
        second = await post(b"{}", {})
        assert isinstance(second, DirectReply)
        second.watch(lambda: changes.append(None))
        first.close()
        raw.writers[0].write(b"0123456789")
        assert await second.content.read() == b"0123456789"
    assert changes


async def test_a_connection_whose_answer_was_not_read_is_closed() -> None:
    raw = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    async with posting(raw) as post:
        reply = await post(b"{}", {})
        reply.close()
        await asyncio.wait_for(raw.hung_up.wait(), 5)


class Hasty(Raw):
    """Answers as soon as the head of a request has come, and reads no further."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append([await reader.readuntil(b"\r\n\r\n")])
        writer.write(self.answers.pop(0))
        await self.hung_up.wait()
        writer.close()


async def test_a_connection_that_was_answered_before_all_was_sent_is_not_used_again() -> None:
    """The next request would wait behind the rest of this one."""
    raw = Hasty(ANSWER, ANSWER)
    async with posting(raw) as post:
        for body in (b"x" * 50_000_000, b"{}"):
            assert await (await post(body, {})).content.read() == b"{}"
        raw.hung_up.set()
    assert len(raw.heard) == 2


async def test_who_is_cancelled_hangs_up() -> None:
    raw = Raw(holds=True)
    async with posting(raw) as post:
        task = asyncio.ensure_future(post(b"{}", {}))
        while not (raw.heard and raw.heard[0]):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(raw.hung_up.wait(), 5)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_informational_answers_are_passed_over() -> None:
    raw = Raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ANSWER)
    async with posting(raw) as post:
        assert (await post(b"{}", {})).status == 200


async def test_a_large_body_goes_out_whole() -> None:
    raw, body = Raw(ANSWER), b"x" * 5_000_000
    async with posting(raw) as post:
        await post(body, {})
    assert raw.heard[0][0].endswith(body)


@pytest.mark.parametrize("answer", [b"", b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_what_is_no_answer_is_an_error_of_aiohttp(answer: bytes) -> None:
    async with posting(Raw(answer, closes=True)) as post:
        with pytest.raises(aiohttp.ClientError):
            await post(b"{}", {})


async def test_an_answer_that_breaks_off_is_an_error_of_aiohttp() -> None:
    async with posting(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", closes=True)) as post:
        reply = await post(b"{}", {})
        with pytest.raises(aiohttp.ClientError):
            await reply.content.read()
        reply.close()


async def test_a_body_that_stops_coming_times_out() -> None:
    async with posting(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), idle_seconds=0.05) as post:
        reply = await post(b"{}", {})
        with pytest.raises(asyncio.TimeoutError):
            await reply.content.read()
        reply.close()


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b"])
def test_a_value_of_more_than_one_line_is_no_header(value: str) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        header_lines({"traceparent": value})


async def test_sessions_of_other_programs_are_asked_the_usual_way() -> None:
    raw = Raw(ANSWER)
    server = await asyncio.start_server(raw.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, aiohttp.ClientSession() as session:
        reply = await poster(session, URL(f"http://127.0.0.1:{port}/"), {"Authorization": "Bearer k"})(b"{}", {})
        assert await reply.content.read() == b"{}"
    await raw.gone()
    assert b"Authorization: Bearer k" in raw.heard[0][0]
