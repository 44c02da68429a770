"""Chat completions with an Idempotency-Key: the same request sent again gets the same answer.

The header is that of the IETF's draft and of Stripe's API. A request whose envelope is not valid takes no key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from proxy.api.answer_headers import answer_headers
from proxy.api.app_keys import PRINCIPAL, Gateway
from proxy.api.openai.errors import error_event, error_response, status_of
from proxy.api.streaming import begin, break_off, stream_headers
from proxy.application.exchange import Exchange
from proxy.application.idempotency import AnswerHead, IdempotencyKey, Recording, SharedAnswer
from proxy.application.orchestrator import TAGS_HEADER
from proxy.application.payloads import Capture
from proxy.application.tracing import short_trace
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import GatewayError, InvalidRequest, StreamBroken, kind_of
from proxy.domain.raised import forget_where

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "idempotent-replayed"
_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,255}")
_BROKEN = "stream_broken"
_OK, _FIRST_SERVER_ERROR = 200, 500
_MAY_PASS = frozenset({402, 408, 409, 425, 429})  # out of credits, time-outs, conflicts, too early, too many


async def answer_once(
    request: web.Request, gateway: Gateway, exchange: Exchange, chat: ChatRequest, capture: Capture | None
) -> web.StreamResponse:
    """The answer to the first request with this key; it is carried out if this is the first.

    Raises InvalidRequest, IdempotencyKeyReused or IdempotentAnswerNotKept.
    """
    key = IdempotencyKey(request[PRINCIPAL].id, _key(request))
    tags = "\n".join(request.headers.getall(TAGS_HEADER, ()))  # they choose who may answer, as the body does
    shared = await gateway.idempotency.join(
        key,
        chat.body + tags.encode(errors="surrogateescape"),
        lambda recording: _Production(request, gateway, exchange, chat, recording).run(),
    )
    try:
        return await _Delivery(request, exchange, shared, capture).run()
    except (asyncio.CancelledError, ConnectionError):
        exchange.abandoned()  # before the production ends, which may go on for others and books this row then
        raise
    finally:
        await shared.leave()


def _key(request: web.Request) -> str:
    given = request.headers.getall(KEY_HEADER)
    if len(given) != 1 or not _WELL_FORMED.fullmatch(given[0]):
        raise InvalidRequest(
            "Idempotency-Key must be 1 to 255 visible ASCII characters, and sent once.", code="invalid_idempotency_key"
        )
    return given[0]


class _Production:
    """Carries the first request out, and books it, whether or not its own client is still there."""

    def __init__(
        self, request: web.Request, gateway: Gateway, exchange: Exchange, chat: ChatRequest, recording: Recording
    ) -> None:
        self._headers = request.headers
        self._gateway = gateway
        self._exchange = exchange
        self._chat = chat
        self._recording = recording

    async def run(self) -> bool:
        """Whether the answer may be sent again: not an error that may pass, nor a stream that broke."""
        try:
            return await (self._stream() if self._chat.stream else self._complete())
        except GatewayError as error:
            return await self._fail(error)
        except asyncio.CancelledError:
            self._exchange.abandoned()
            self._exchange.settle()
            raise

    async def _complete(self) -> bool:
        exchange = self._exchange
        answer = await self._gateway.orchestrator.complete(exchange, self._chat, self._headers)
        exchange.answering(_OK)
        headers = {**answer_headers(answer, exchange), "Content-Type": answer.content_type}
        exchange.settle()
        await exchange.durable()
        self._recording.begin(AnswerHead(_OK, headers))
        await self._recording.write(answer.body, completes=True)
        return not exchange.facts().tells_failure

    async def _fail(self, error: GatewayError) -> bool:
        status = status_of(error)
        self._exchange.failed(error, status)
        self._exchange.settle()
        response = error_response(error)
        headers = {**response.headers, "x-gateway-attempts": str(self._exchange.attempts)}
        if self._exchange.walked:
            headers["x-gateway-trace"] = short_trace(self._exchange)
        forget_where(*(attempt.error for attempt in self._exchange.walked))
        self._recording.begin(AnswerHead(status, headers, error_type=kind_of(error)))
        await self._recording.write(response.body if isinstance(response.body, bytes) else b"", completes=True)
        return status < _FIRST_SERVER_ERROR and status not in _MAY_PASS

    async def _stream(self) -> bool:
        exchange, recording = self._exchange, self._recording
        stream = await self._gateway.orchestrator.stream(exchange, self._chat, self._headers)
        try:
            exchange.answering(_OK)
            recording.begin(AnswerHead(_OK, stream_headers(stream.answer, exchange), is_stream=True))
            async for data in stream:
                is_whole = exchange.booked is not None
                await recording.write(data, completes=is_whole and not recording.is_complete)
        except StreamBroken as error:
            exchange.failed(error)
            exchange.settle()
            if not error.told:
                await recording.write(error_event(error))
        finally:
            await stream.aclose()
        return recording.is_complete and not exchange.facts().tells_failure


class _Delivery:
    """Sends a recording to one client, and books those that had nothing generated for them."""

    def __init__(self, request: web.Request, exchange: Exchange, shared: SharedAnswer, capture: Capture | None) -> None:
        self._request = request
        self._exchange = exchange
        self._shared = shared
        self._capture = capture
        self._is_whole = False  # what the client was sent

    async def run(self) -> web.StreamResponse:
        head = await self._shared.head()
        headers = head.headers if self._shared.is_first else self._replayed(head.headers)
        if self._capture is not None:
            self._capture.content_type = headers["Content-Type"].partition(";")[0]
        if not self._shared.is_first:
            self._exchange.answering(head.status)
        if head.is_stream:
            return await self._relay(web.StreamResponse(status=head.status, headers=headers))
        body = b"".join([data async for data in self._pieces(head.error_type)])
        self._note(body)
        return web.Response(status=head.status, headers=headers, body=body)

    async def _relay(self, response: web.StreamResponse) -> web.StreamResponse:
        try:
            await begin(self._request, response)
            await self._write_all(response)
            await response.write_eof()
        except ConnectionError:
            self._exchange.abandoned()
        except asyncio.CancelledError:
            self._exchange.abandoned()
            await break_off(self._request, None if self._is_whole else response.write)
            raise
        return response

    async def _write_all(self, response: web.StreamResponse) -> None:
        try:
            async for data in self._pieces(None):
                await response.write(data)
                self._note(data)
        except StreamBroken as error:
            self._exchange.failed(error)
            await response.write(error_event(error))

    async def _pieces(self, error_type: str | None) -> AsyncIterator[bytes]:
        """The answer's bytes. Before the last of them are given out, this request is booked."""
        while True:
            data, completes = await self._shared.read()
            if not self._shared.is_first and (completes or not data):
                self._exchange.replayed(error_type if completes else _BROKEN, is_broken=not completes)
                self._exchange.settle()
                await self._exchange.durable()
            if not data:
                return
            self._is_whole = self._is_whole or completes
            yield data

    def _note(self, data: bytes) -> None:
        if self._capture is not None:
            self._capture.add(data)

    def _replayed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The first answer's headers, but for what they say of its making: nothing was asked or paid for this one."""
        return {
            **headers,
            "x-gateway-attempts": "0",
            "x-gateway-cost-usd": "0",
            "x-gateway-trace": "none",
            "x-gateway-overhead-ms": f"{self._exchange.overhead_ms():.2f}",
            REPLAYED_HEADER: "true",
        }
