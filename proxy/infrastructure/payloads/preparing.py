"""From captured bodies to a row: redacted, then cut, then compressed. Runs in a thread; touches nothing shared."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from proxy.application.payloads import Capture, Redaction
from proxy.domain.request_log import RequestLog

GZIP_FORMAT = zlib.MAX_WBITS | 16
_LEVEL = 6
_NAME_LENGTH = 255


class RedactionFailed(Exception):
    """The hook raised, or gave something that is not bytes. Says what kind of error; messages may hold the body."""


@dataclass(frozen=True, slots=True)
class PayloadRow:
    """A row of the table, its fields in the order of the table's columns."""

    id: UUID
    request_id: str
    timestamp: datetime
    request_body: bytes | None
    request_bytes: int | None
    request_truncated: bool
    response_body: bytes | None
    response_bytes: int | None
    response_truncated: bool
    content_type: str | None


def prepare(row: RequestLog, capture: Capture, redaction: Redaction | None) -> PayloadRow:
    """Raises RedactionFailed. The hook sees whole bodies, but of streams what was kept: their beginning."""
    request, request_cut = _shrunk(capture.request, capture.max_bytes, redaction)
    came = b"".join(capture.response)
    response, response_cut = _shrunk(came or None, capture.max_bytes, redaction)
    return PayloadRow(
        id=row.id,
        request_id=row.request_id,
        timestamp=row.timestamp,
        request_body=request,
        request_bytes=None if capture.request is None else len(capture.request),
        request_truncated=request_cut,
        response_body=response,
        response_bytes=capture.response_bytes or None,
        response_truncated=response_cut or len(came) < capture.response_bytes,
        content_type=_plain(capture.content_type),
    )


def _shrunk(body: bytes | None, max_bytes: int, redaction: Redaction | None) -> tuple[bytes | None, bool]:
    if body is None:
        return None, False
    shown = body if redaction is None else _redacted(body, redaction)
    return zlib.compress(shown[:max_bytes], _LEVEL, GZIP_FORMAT), len(shown) > max_bytes


def _redacted(body: bytes, redaction: Redaction) -> bytes:
    try:
        shown: object = redaction(body)
    except Exception as problem:
        raise RedactionFailed(type(problem).__name__) from problem
    if not isinstance(shown, bytes):
        raise RedactionFailed(f"it gave {type(shown).__name__} instead of bytes")
    return shown


def _plain(content_type: str | None) -> str | None:
    """An upstream may send anything; PostgreSQL takes no NUL."""
    return content_type and "".join(c for c in content_type if c.isprintable())[:_NAME_LENGTH]
