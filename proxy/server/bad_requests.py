"""Answers to requests that never become one, and one line in the log for many of them."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Final
from uuid import uuid4

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web import BaseRequest

from proxy.api.middlewares.request_id import HEADER
from proxy.api.openai.errors import error_object, error_response
from proxy.domain.errors import GatewayError

_logger = logging.getLogger(__name__)
_MAX_EXAMPLES: Final = 3


class RefusalAnswer(web.Response):
    """The error in OpenAI's form, with a request id, as the connection's last answer.

    Once it is sent, the gateway's side of the connection is closed, so that the client sees the end of it.
    """

    def __init__(self, error: GatewayError) -> None:
        plain = error_response(error)
        super().__init__(status=plain.status, text=plain.text, content_type="application/json")
        self.reason_code = getattr(error, "reason", None) or str(error_object(error)["error"]["code"])
        self.request_id = f"req-{uuid4().hex}"
        self.headers[HEADER] = self.request_id
        self.headers["Server"] = "llmgateway"
        self.headers["Connection"] = "close"
        self.force_close()
        self._transport: Any = None

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        self._transport = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        await super().write_eof(data)
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()


class BadRequests:
    """What was refused since the log was last told of it: however many, it is one line."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: list[dict[str, str | None]] = []

    def note(self, answer: RefusalAnswer, peer: str | None) -> None:
        """Count one. Nothing that the client sent is kept."""
        self._counts[answer.reason_code] += 1
        if len(self._examples) < _MAX_EXAMPLES:
            self._examples.append({"reason": answer.reason_code, "peer": peer, "request_id": answer.request_id})

    def tell(self) -> None:
        """Log what was noted, if anything was."""
        if self._counts:
            _logger.warning(
                "requests were no valid HTTP",
                extra={"count": self._counts.total(), "reasons": dict(self._counts), "examples": self._examples},
            )
            self._counts, self._examples = Counter(), []
