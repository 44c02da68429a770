"""Recognising what looks like a key, wherever a client may have put it."""

from __future__ import annotations

import re

_KEY_LIKE = re.compile(r"(?<![A-Za-z0-9])(?:sk|pk|rk)-[A-Za-z0-9_\-]{8,}|\bBearer\s+[^\s\"']+")


def without_keys(text: str) -> str:
    """The text as a log may hold it, with what looks like a key blotted out."""
    return _KEY_LIKE.sub("[redacted]", text) if _may_hold_key(text) else text


def holds_key(text: str) -> bool:
    """Whether something in the text looks like a key."""
    return _may_hold_key(text) and _KEY_LIKE.search(text) is not None


def _may_hold_key(text: str) -> bool:
    """Without the expression, which takes much longer."""
    return "k-" in text or "Bearer" in text
