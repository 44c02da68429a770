"""Redaction hooks, as an operator would write them."""

from __future__ import annotations

NOT_CALLABLE = 7


def hide_hello(body: bytes) -> bytes:
    return body.replace(b"Hello", b"[...]")


def shorten(body: bytes) -> bytes:
    return body[:10]


def fail(body: bytes) -> bytes:
    raise ValueError(f"cannot read {body!r}")


def wrong_type(body: bytes) -> str:
    return body.decode()
