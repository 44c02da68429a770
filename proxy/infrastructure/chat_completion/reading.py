"""Decoding JSON of upstreams, which may hold lone surrogates, and members of types that they should not have."""

from __future__ import annotations

from codecs import BOM_UTF8
from json import detect_encoding
from typing import Any, Final

import msgspec

from proxy.domain.json_bytes import without_surrogate_escapes

FALSY: Final = (b"", b"null", b"false", b'""', b"{}", b"[]", b"0")


class Malformed(Exception):
    """The text is not a JSON object of the expected shape."""


def decode(decoder: msgspec.json.Decoder[Any], text: bytes) -> Any:
    """The decoded text, without a byte order mark, lone surrogates blotted out if there are any. Raises Malformed."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as problem:
        raise Malformed(str(problem)) from problem
    except (ValueError, RecursionError) as problem:
        if b"\\u" not in text and not text.startswith(BOM_UTF8):
            raise Malformed(str(problem)) from problem
    try:
        return decoder.decode(without_surrogate_escapes(text.removeprefix(BOM_UTF8)))
    except (ValueError, RecursionError) as problem:
        raise Malformed(str(problem)) from problem


def look(raw: msgspec.Raw | bytes) -> Any:
    """The value, for looking only; None if it cannot be read."""
    for read in (bytes, without_surrogate_escapes, _in_utf8):
        try:
            return msgspec.json.decode(read(bytes(raw)))
        except (ValueError, RecursionError):  # UnicodeDecodeError and DecodeError are ValueErrors
            continue
    return None


def _in_utf8(text: bytes) -> bytes:
    """From the encoding that its first bytes show, as clients read JSON; what is not in it is blotted out."""
    return text.decode(detect_encoding(text), errors="replace").encode()


def text_of(raw: msgspec.Raw) -> str | None:
    """The text of a raw string; None for anything else, and for an empty one."""
    value = look(raw) if bytes(raw).startswith(b'"') else None
    return value if isinstance(value, str) and value else None
