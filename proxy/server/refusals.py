"""Whole answers to requests that are turned away, made beforehand."""

from __future__ import annotations

import itertools
import json
import secrets
from typing import Final

from proxy.api.openai.errors import error_object
from proxy.application.load import RETRY_AFTER_SECONDS, Refusal
from proxy.domain.errors import Overloaded

_WAITS_SECONDS: Final = range(int(RETRY_AFTER_SECONDS), int(RETRY_AFTER_SECONDS) + 3)
_MESSAGES: Final = {
    Refusal.LATE: "The gateway is overloaded.",
    Refusal.IN_FLIGHT: "The gateway serves as many requests as it may.",
    Refusal.QUEUED: "Too many requests wait for their turn.",
    Refusal.CONNECTIONS: "The gateway has as many connections as it may have.",
}


class Refusals:
    """503 in OpenAI's form, with a request id and when to come back.

    The waits differ, lest all come back at once.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waits = itertools.cycle(_WAITS_SECONDS)
        self._keeping = {reason: _form(message, closes=False) for reason, message in _MESSAGES.items()}
        self._closing = {reason: _form(message, closes=True) for reason, message in _MESSAGES.items()}

    def answer(self, reason: Refusal, *, closes: bool = False) -> bytes:
        """With `closes` it says that the connection ends with it."""
        form = self._closing if closes else self._keeping
        return form[reason] % (next(self._waits), next(self._numbers))


def _form(message: str, *, closes: bool) -> bytes:
    """With places for the wait in seconds and for the request's number."""
    body = json.dumps(error_object(Overloaded(f"{message} Try again in a moment.", RETRY_AFTER_SECONDS)))
    lines = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Retry-After: %d",
        f"x-request-id: req-{secrets.token_hex(8)}%016x",
        "Server: llmgateway",
        *(("Connection: close",) if closes else ()),
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
