"""Requests that are refused without a parser must end where a parser says that they end."""

from __future__ import annotations

import asyncio
import random

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser

from proxy.server.plain_requests import authorization_in, head_of, is_exactly, is_plain
from tests.gateway.raw_http import request_bytes

OF_THE_SDK = [
    b"Accept: application/json",
    b"Connection: keep-alive",
    b"User-Agent: OpenAI/Python 2.9.0",
    b"X-Stainless-Lang: python",
    b"Authorization: Bearer sk-Some_Key-1",
]
ODD = (
    [b"Transfer-Encoding: chunked"],
    [b"TRANSFER-ENCODING : chunked"],
    [b"Content-Length: 2"],
    [b"Content-Length : 2"],
    [b"content-length: 0"],
    [b"Expect: 100-continue"],
    [b"Upgrade: websocket", b"Connection: Upgrade"],
    [b"Connection: close"],
    [b"Connection:close"],
    [b"Connection:\tclose"],
    [b"Connection:  close"],
    [b"Connection: keep-alive, close"],
    [b"X-Folded: a", b" b"],
    [b"X-Folded: a", b"\tContent-Length: 9"],
    [b"X-Bare: a\nContent-Length: 7"],
    [b"X-Bare: a\rContent-Length: 7"],
    [b"X-Null: a\0b"],
    [b"X-High: \xff"],
    [b": no name"],
    [b"no colon"],
    [b"Spaced Name: x"],
    [b""],
)


def parsed_whole(data: bytes, parser: HttpRequestParser) -> bool:
    """Whether the parser takes it for one request, and for nothing of another one."""
    try:
        messages, upgraded, _ = parser.feed_data(data)
        if len(messages) != 1 or upgraded or not messages[0][1].is_eof() or messages[0][0].should_close:
            return False
        following, _, _ = parser.feed_data(request_bytes(b"{}"))
    except HttpProcessingError:
        return False
    return len(following) == 1 and following[0][0].headers["Host"] == "gateway"


async def new_parser() -> HttpRequestParser:
    loop = asyncio.get_running_loop()
    return HttpRequestParser(BaseProtocol(loop), loop, 2**16, auto_decompress=False)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
async def test_what_sdks_send_is_plain(path: str) -> None:
    data = request_bytes(b'{"model": "m"}', *OF_THE_SDK, path=path)
    assert is_plain(data)
    assert authorization_in(data) == "Bearer sk-Some_Key-1"
    assert parsed_whole(data, await new_parser())


async def test_without_a_key_there_is_none() -> None:
    data = request_bytes(b"{}")
    assert is_plain(data)
    assert authorization_in(data) is None


@pytest.mark.parametrize("lines", ODD, ids=repr)
def test_in_doubt_it_is_the_parsers(lines: list[bytes]) -> None:
    assert not is_plain(request_bytes(b"{}", *OF_THE_SDK, *lines))
    assert not is_plain(request_bytes(b"{}", *lines, *OF_THE_SDK))


def test_more_or_less_than_one_request_is_the_parsers() -> None:
    whole = request_bytes(b'{"model": "m"}', *OF_THE_SDK)
    for data in (b"", b"\r\n\r\n", whole[:-1], whole + b"G", whole + whole, b"\r\n" + whole, whole[1:]):
        assert not is_plain(data)
    for other in (request_bytes(None), request_bytes(b"{}", path="/v1/models"), request_bytes(b"{}", method="PUT")):
        assert not is_plain(other)


async def test_it_never_differs_from_the_parser() -> None:
    """Whatever is done to a request: cut, doubled, or with bytes put in that mean something to somebody."""
    chance = random.Random(6)  # noqa: S311  # the same each time
    pieces = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"0",
        b"1",
        b"\0",
        b"\xff",
        b";",
        b",",
        b"Content-Length: 3\r\n",
    ]
    pieces += [line + b"\r\n" for lines in ODD for line in lines]
    plain = 0
    for _ in range(6000):
        data = bytearray(request_bytes(b'{"model": "m"}', *chance.sample(OF_THE_SDK, 3)))
        for _ in range(chance.randint(0, 2)):
            place = chance.randrange(len(data))
            data[place : place + chance.choice((0, 0, 1, 2))] = chance.choice(pieces)
        has_host = b"\r\nHost: gateway\r\n" in data  # which the parser wants, though it ends nothing
        if has_host and is_plain(bytes(data)):
            plain += 1
            assert parsed_whole(bytes(data), await new_parser()), bytes(data)
    assert plain > 500


def test_a_head_is_all_before_the_body() -> None:
    data = request_bytes(b'{"model": "m"}', *OF_THE_SDK)
    assert head_of(data) + b'{"model": "m"}' == data
    assert head_of(data).endswith(b"\r\n\r\n")


async def test_an_end_that_is_no_end_is_noticed() -> None:
    """What was parsed before a refusal must not go on in what is refused."""
    whole = request_bytes(b'{"model": "m"}', *OF_THE_SDK)
    chunked = request_bytes(None, b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    for data, is_an_end in (
        (whole, True),
        (request_bytes(None, method="GET"), True),
        (whole + b"POST /v1/chat/completions HTTP/1.1\r\nX-Begun: ", False),
        (whole[:-3], False),
        (chunked, False),
        (b"\r\n" + whole, True),
        (b"\r\n\r\n" + whole, False),
    ):
        messages, _, _ = (await new_parser()).feed_data(data)
        assert is_exactly(data, messages[0][1]) is is_an_end, data
