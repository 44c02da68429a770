"""What the gateway takes for a request, and what it makes of those that the parser does not take.

Stricter than a server need be: what another party on the way might read differently, a proxy must not pass or answer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadStatusLine, InvalidHeader, InvalidURLError, LineTooLong

from proxy.domain.errors import GatewayError, HeadTooLarge, MalformedHttp, UnsupportedExpectation

_HOST: Final = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_MET: Final = ("", "100-continue")
_TOO_MANY: Final = "Too many headers"
MAX_LINE_BYTES: Final = 8190
MAX_HEADERS: Final = 128


def head_error(message: RawRequestMessage) -> GatewayError | None:
    """Why a head that the parser has taken is refused all the same; None if it is not."""
    version = message.version
    if version is not HttpVersion11 and version not in (HttpVersion10, HttpVersion11):
        return MalformedHttp("Only HTTP/1.0 and HTTP/1.1 are spoken here.", "version")
    headers = message.headers
    if not _is_host(headers.get(hdrs.HOST, "")):
        return MalformedHttp("The Host header is not a host.", "host")
    if not message.path.startswith("/"):
        return MalformedHttp("The target must be a path: this is no forward proxy.", "target")
    if message.upgrade and headers.get(hdrs.UPGRADE, "").strip().lower() != "h2c":  # which may be left unheeded
        return MalformedHttp("No protocol to upgrade to is spoken here.", "upgrade")
    if hdrs.TRANSFER_ENCODING in headers and (
        version != HttpVersion11 or headers[hdrs.TRANSFER_ENCODING].strip().lower() != "chunked"
    ):
        return MalformedHttp("The only Transfer-Encoding is 'chunked', in HTTP/1.1.", "transfer_encoding")
    return _expectation_error(message) if hdrs.EXPECT in headers else None


def _expectation_error(message: RawRequestMessage) -> GatewayError | None:
    """For all paths alike: aiohttp answers with the client's words, before any middleware. HTTP/1.0 has none."""
    expectations = message.headers.getall(hdrs.EXPECT)
    if message.version != HttpVersion11 or all(each.lower() in _MET for each in expectations):
        return None
    return UnsupportedExpectation("Only 'Expect: 100-continue' is supported.")


@lru_cache(maxsize=256)
def _is_host(value: str) -> bool:
    return _HOST.fullmatch(value) is not None


def head_size_bytes(message: RawRequestMessage) -> int:
    """About as many as came over the wire."""
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)


def parser_error(problem: BaseException) -> GatewayError:
    """The parser's own words hold what the client sent: neither the answer nor the log repeats it."""
    if isinstance(problem, LineTooLong):
        return HeadTooLarge(MAX_LINE_BYTES)
    if str(getattr(problem, "message", "")).startswith(_TOO_MANY):
        return HeadTooLarge(MAX_HEADERS, "headers")
    if isinstance(problem, BadStatusLine | InvalidURLError):
        return MalformedHttp("The request line is not one of HTTP/1.1.", "request_line")
    if isinstance(problem, InvalidHeader):
        return MalformedHttp("A header is not well-formed.", "header")
    return MalformedHttp("The request is not well-formed HTTP/1.1.", "framing")
