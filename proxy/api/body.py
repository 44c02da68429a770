"""Reading a request's body: bounded in size and time, and only if it is what we take."""

from __future__ import annotations

import asyncio

from aiohttp import web

from proxy.domain.errors import BodyTooLarge, InvalidRequest, UnsupportedContentEncoding, UnsupportedMediaType


async def read_json_body(request: web.Request, limit_bytes: int, timeout_seconds: float) -> bytes:
    """The raw body.

    Raises:
        UnsupportedMediaType, UnsupportedContentEncoding, BodyTooLarge: before any of it is read, where that can be told
            from the headers.
        InvalidRequest: it did not arrive in time.
    """
    _check_headers(request)
    if (request.content_length or 0) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    try:
        async with asyncio.timeout(timeout_seconds):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(limit_bytes) from None
    except TimeoutError:
        raise InvalidRequest(f"The request body did not arrive within {timeout_seconds:g} s.") from None


def _check_headers(request: web.Request) -> None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedContentEncoding(
            f"Content-Encoding '{_plain(encoding)}' is not supported; send the JSON as it is."
        )
    if "Content-Type" not in request.headers:
        return
    media_type = request.content_type
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaType(
            f"Content-Type '{_plain(media_type)}' is not supported; send 'Content-Type: application/json'."
        )
    charset = (request.charset or "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise UnsupportedMediaType(f"Charset '{_plain(charset)}' is not supported; JSON is UTF-8.")


def _plain(text: str) -> str:
    return "".join(c for c in text[:64] if c.isascii() and c.isprintable())
