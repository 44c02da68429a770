"""Reading a request's body: bounded in size, and only if it is what we take. Its time is bounded by the connection."""

from __future__ import annotations

from aiohttp import HttpVersion11, web

from proxy.application.whole_bodies import whole_body
from proxy.domain.errors import (
    BodyTooLarge,
    MalformedHttp,
    RequestTooSlow,
    UnsupportedContentEncoding,
    UnsupportedMediaType,
)

_CONTINUE = "100-continue"
_JSON = "application/json"


async def read_json_body(request: web.Request, limit_bytes: int) -> bytes:
    """The raw body.

    Raises:
        UnsupportedMediaType, UnsupportedContentEncoding, BodyTooLarge: before any of it is read, where that can be told
            from the headers.
        RequestTooSlow: it did not arrive in time.
        MalformedHttp: it was not framed as HTTP has it.
    """
    _check_headers(request)
    if (request.content_length or 0) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    try:
        if "Content-Length" not in request.headers:
            return await request.read()
        if not request.content.is_eof():
            await _arrival(request, limit_bytes)
        return whole_body(request.content)
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(limit_bytes) from None
    except TimeoutError as limit:
        raise RequestTooSlow(f"The request body did not arrive in time ({limit}).") from None
    except web.RequestPayloadError:
        raise MalformedHttp("The request body is not framed as HTTP/1.1 has it.") from None


async def _arrival(request: web.Request, limit_bytes: int) -> None:
    """Waits for all of a body whose length is known and within the limit: nobody is woken for each piece of it."""
    content = request.content
    content.set_read_chunk_size(limit_bytes)  # as much may wait here
    request.protocol.resume_reading()  # of what came in one go some may have been held back
    if content.exception() is None:
        await content.wait_eof()


async def expect_continue(request: web.Request) -> None:
    """Asks a client that waits for it to send its body, unless the body will not be taken anyway.

    There are no other expectations here: the server refuses their heads. A client of HTTP/1.0 knows no interim answers
    (RFC 9110, section 10.1.1).
    """
    if request.version != HttpVersion11 or (request.content_length or 0) > request.client_max_size:
        return
    if _expectation(request) == _CONTINUE:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp counts the answer's bytes from here on


def _expectation(request: web.Request) -> str:
    return request.headers.get("Expect", "").strip().lower()


def _check_headers(request: web.Request) -> None:
    headers = request.headers
    if "Content-Encoding" in headers:
        encoding = headers["Content-Encoding"].strip().lower()
        if encoding not in ("", "identity"):
            raise UnsupportedContentEncoding(
                f"Content-Encoding '{_plain(encoding)}' is not supported; send the JSON as it is."
            )
    if headers.get("Content-Type", _JSON) != _JSON:
        _check_content_type(request)


def _check_content_type(request: web.Request) -> None:
    media_type = request.content_type
    if media_type != _JSON and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"Content-Type '{_plain(media_type)}' is not supported; send 'Content-Type: application/json'."
        )
    charset = (request.charset or "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise UnsupportedMediaType(f"Charset '{_plain(charset)}' is not supported; JSON is UTF-8.")


def _plain(text: str) -> str:
    return "".join(c for c in text[:64] if c.isascii() and c.isprintable())
