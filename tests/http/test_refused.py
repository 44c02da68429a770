"""Requests that another party on the way could read differently, or that are none at all, byte for byte."""

from __future__ import annotations

import json

import pytest

from tests.gateway.raw_http import chunked, connected
from tests.harness import HELLO
from tests.http.conftest import Served, check_refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = json.dumps(HELLO).encode()
END = b"\r\n\r\n"
GET = b"GET /health/live HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: b\r\n\r\n"


def sized(line: bytes, body: bytes = BODY) -> bytes:
    return POST + line + END + body


FRAMING = {
    "length and chunks": sized(b"Content-Length: 4\r\nTransfer-Encoding: chunked", chunked(BODY) + SMUGGLED),
    "chunks and length": sized(b"Transfer-Encoding: chunked\r\nContent-Length: 4", chunked(BODY) + SMUGGLED),
    "two lengths": sized(b"Content-Length: %d\r\nContent-Length: 3" % len(BODY)),
    "the same length twice": sized(b"Content-Length: %d\r\nContent-Length: %d" % (len(BODY), len(BODY))),
    "two lengths in one": sized(b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
    "length with a sign": sized(b"Content-Length: +%d" % len(BODY)),
    "negative length": sized(b"Content-Length: -1"),
    "hexadecimal length": sized(b"Content-Length: 0x10"),
    "length with a point": sized(b"Content-Length: 10.0"),
    "length with an underscore": sized(b"Content-Length: 1_0"),
    "length of other digits": sized("Content-Length: \u0661\u0660".encode()),
    "no length at all": sized(b"Content-Length:"),
    "length beyond numbers": sized(b"Content-Length: 99999999999999999999999999"),
    "length with a space in it": sized(b"Content-Length: 1 0"),
    "gzip and chunks": sized(b"Transfer-Encoding: gzip, chunked", chunked(BODY)),
    "chunks and gzip": sized(b"Transfer-Encoding: chunked, gzip", chunked(BODY)),
    "gzip alone": sized(b"Transfer-Encoding: gzip"),
    "identity": sized(b"Transfer-Encoding: identity"),
    "identity and chunks": sized(b"Transfer-Encoding: identity, chunked", chunked(BODY)),
    "chunks twice": sized(b"Transfer-Encoding: chunked, chunked", chunked(BODY)),
    "chunks in two headers": sized(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunked(BODY)),
    "xchunked": sized(b"Transfer-Encoding: xchunked", chunked(BODY)),
    "chunked with a vertical tab": sized(b"Transfer-Encoding: \x0bchunked", chunked(BODY)),
    "chunked in quotes": sized(b'Transfer-Encoding: "chunked"', chunked(BODY)),
    "chunked with a parameter": sized(b"Transfer-Encoding: chunked;q=1", chunked(BODY)),
    "no coding at all": sized(b"Transfer-Encoding:", chunked(BODY)),
    "chunks in HTTP/1.0": sized(b"Transfer-Encoding: chunked", chunked(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "space before the colon": sized(b"Transfer-Encoding : chunked", chunked(BODY)),
    "tab before the colon": sized(b"Content-Length\t: %d" % len(BODY)),
    "name of a length with a space": sized(b"Content Length: %d" % len(BODY)),
    "folded coding": sized(b"Transfer-Encoding:\r\n chunked", chunked(BODY)),
    "folded header": GET + b"X-Title: a\r\n b" + END,
    "folded with a tab": GET + b"X-Title: a\r\n\tb" + END,
    "folded first header": b"GET /health/live HTTP/1.1\r\n Host: a" + END,
    "bare LF everywhere": GET.replace(b"\r\n", b"\n") + b"\n",
    "bare LF in the head": GET + b"X-Title: a\nX-Other: b" + END,
    "bare CR in the head": GET + b"X-Title: a\rX-Other: b" + END,
    "bare CR instead of both": GET.replace(b"\r\n", b"\r") + b"\r",
    "CR CR LF": GET + b"X-Title: a\r\r\n\r\n",
    "NUL in a value": GET + b"X-Title: a\x00b" + END,
    "NUL in a name": GET + b"X-\x00Title: a" + END,
    "escape in a value": GET + b"X-Title: \x1b[31m" + END,
    "backspace in a value": GET + b"X-Title: a\x08b" + END,
    "delete in a value": GET + b"X-Title: a\x7fb" + END,
    "umlaut in a name": GET + "X-Tïtle: a".encode() + END,
    "no name": GET + b": a" + END,
    "no colon": GET + b"nonsense" + END,
    "parentheses in a name": GET + b"X(Title): a" + END,
}

TARGETS = {
    "no host": b"GET /health/live HTTP/1.1" + END,
    "two hosts": GET + b"Host: b" + END,
    "the same host twice": GET + b"Host: a" + END,
    "space in the host": b"GET /health/live HTTP/1.1\r\nHost: a b" + END,
    "tab in the host": b"GET /health/live HTTP/1.1\r\nHost: a\tb" + END,
    "path in the host": b"GET /health/live HTTP/1.1\r\nHost: a/b" + END,
    "user in the host": b"GET /health/live HTTP/1.1\r\nHost: u@a" + END,
    "two hosts in one": b"GET /health/live HTTP/1.1\r\nHost: a, b c" + END,
    "umlaut in the host": "GET /health/live HTTP/1.1\r\nHost: ä".encode() + END,
    "space in an old host": b"GET /health/live HTTP/1.0\r\nHost: a b" + END,
    "absolute target": b"GET http://elsewhere/health/live HTTP/1.1\r\nHost: a" + END,
    "absolute target with a user": b"GET http://u:p@elsewhere/health/live HTTP/1.1\r\nHost: a" + END,
    "absolute target of another scheme": b"GET file:///etc/passwd HTTP/1.1\r\nHost: a" + END,
    "metadata service": b"GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\nHost: a" + END,
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a" + END,
    "asterisk for another method": b"GET * HTTP/1.1\r\nHost: a" + END,
    "CONNECT": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443" + END,
    "CONNECT to a path": b"CONNECT /health HTTP/1.1\r\nHost: a" + END,
    "relative target": b"GET health/live HTTP/1.1\r\nHost: a" + END,
    "no target": b"GET  HTTP/1.1\r\nHost: a" + END,
    "space in the target": b"GET /health/live x HTTP/1.1\r\nHost: a" + END,
    "NUL in the target": b"GET /health\x00 HTTP/1.1\r\nHost: a" + END,
    "escape in the target": b"GET /\x1b[2J HTTP/1.1\r\nHost: a" + END,
    "websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13" + END + SMUGGLED,
    "websocket in capitals": GET + b"Connection: UPGRADE\r\nUpgrade: WebSocket" + END + b"\x00\x01garbage",
}

VERSIONS = {
    "HTTP/0.9": b"GET /health/live\r\n\r\n",
    "HTTP/0.9 by name": b"GET /health/live HTTP/0.9\r\nHost: a" + END,
    "HTTP/2.0 by name": b"GET /health/live HTTP/2.0\r\nHost: a" + END,
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/1.2": b"GET /health/live HTTP/1.2\r\nHost: a" + END,
    "HTTP/1.9": b"GET /health/live HTTP/1.9\r\nHost: a" + END,
    "HTTP/3.0": b"GET /health/live HTTP/3.0\r\nHost: a" + END,
    "HTTP/1": b"GET /health/live HTTP/1\r\nHost: a" + END,
    "HTTP/1.10": b"GET /health/live HTTP/1.10\r\nHost: a" + END,
    "HTTP/01.1": b"GET /health/live HTTP/01.1\r\nHost: a" + END,
    "small letters": b"GET /health/live http/1.1\r\nHost: a" + END,
    "another protocol": b"GET /health/live HTTPS/1.1\r\nHost: a" + END,
    "small method": b"get /health/live HTTP/1.1\r\nHost: a" + END,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 64 + END,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"HELO example.org\r\n",
    "zeros": b"\x00" * 256,
}

CHUNKS = {
    "no size": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative size": b"-1\r\n{}\r\n0\r\n\r\n",
    "size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\n{}\r\n0\r\n\r\n",
    "size of other digits": "\u0662".encode() + b"\r\n{}\r\n0\r\n\r\n",
    "size beyond numbers": b"fffffffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "size with a space before it": b" 2\r\n{}\r\n0\r\n\r\n",
    "size with a space after it": b"2 \r\n{}\r\n0\r\n\r\n",
    "wrong size": b"5\r\n{}\r\n0\r\n\r\n",
    "bare LF after the size": b"2\n{}\r\n0\r\n\r\n",
    "bare CR after the size": b"2\r{}\r\n0\r\n\r\n",
    "bare LF after the data": b"2\r\n{}\n0\r\n\r\n",
    "no line end after the data": b"2\r\n{}0\r\n\r\n",
    "LF in an extension": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "CR in an extension": b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    "colon in place of a semicolon": b"2:a\r\n{}\r\n0\r\n\r\n",
    "space in a trailer's name": b"2\r\n{}\r\n0\r\nX Trailer: a\r\n\r\n",
    "NUL in a trailer": b"2\r\n{}\r\n0\r\nX-Trailer: a\x00\r\n\r\n",
    "folded trailer": b"2\r\n{}\r\n0\r\nX-Trailer: a\r\n b\r\n\r\n",
}

MANY_LINES = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1000) for n in range(100))
HEADS = {
    "long target": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a" + END,
    "long name": GET + b"a" * 70_000 + b": b" + END,
    "long value": GET + b"X-Title: " + b"a" * 70_000 + END,
    "long line without an end": GET + b"X-Title: " + b"a" * 70_000,
    "many headers": GET + b"X-Title: a\r\n" * 10_000 + b"\r\n",
    "many short headers without an end": GET + b"a:b\r\n" * 20_000,
    "a hundred long headers": GET + MANY_LINES + b"\r\n",
    "a hundred long headers and a long body": POST + MANY_LINES + b"Content-Length: 90000" + END + b"b" * 90_000,
    "a hundred long headers without an end": GET + MANY_LINES,
}


@pytest.mark.parametrize("request_", (FRAMING | TARGETS | VERSIONS).values(), ids=FRAMING | TARGETS | VERSIONS)
async def test_is_refused_and_the_connection_ended(served: Served, request_: bytes) -> None:
    calls = served.upstream.calls
    answer = await served.last_answer(request_)
    assert answer is not None
    check_refusal(answer, 400)
    assert served.upstream.calls == calls
    await served.is_well()


@pytest.mark.parametrize("arrives", ["with its head", "after its head"])
@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
async def test_a_chunked_body_that_is_none_is_refused_at_once(served: Served, body: bytes, arrives: str) -> None:
    calls = served.upstream.calls
    if arrives == "with its head":
        answer = await served.last_answer(CHUNKED + body)
        assert answer is not None
    else:
        async with connected(served.gateway.url) as connection:
            await connection.send(CHUNKED.replace(END, b"\r\nExpect: 100-continue\r\n\r\n"))
            assert (await connection.answer()).status == 100
            await connection.send(body)
            answer = await connection.answer()
            assert await connection.is_closed()
    check_refusal(answer, 400)
    assert served.upstream.calls == calls
    await served.is_well()


@pytest.mark.parametrize("request_", HEADS.values(), ids=HEADS)
async def test_a_head_that_is_too_large_is_refused_before_its_end(served: Served, request_: bytes) -> None:
    answer = await served.last_answer(request_)
    assert answer is not None
    check_refusal(answer, 431)
    await served.is_well()
