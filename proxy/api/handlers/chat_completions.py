"""POST /v1/chat/completions"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from proxy.api.answer_headers import answer_headers
from proxy.api.answers import WholeAnswer
from proxy.api.app_keys import EXCHANGE, GATEWAY, PRINCIPAL, REQUEST_ID, Gateway
from proxy.api.body import read_json_body
from proxy.api.idempotent import KEY_HEADER, answer_once
from proxy.api.openai.envelope import read_chat_request
from proxy.api.openai.errors import error_response, status_of
from proxy.api.permissions import needs
from proxy.api.streaming import relay
from proxy.application.admission import Admission
from proxy.application.exchange import Exchange
from proxy.application.payloads import Capture
from proxy.application.tracing import offer_trace
from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import Principal
from proxy.domain.errors import GatewayError

_OK = 200


@needs(Permission.MODELS_CALL, "chat.completions")
async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serves one request, and books it once whatever becomes of it."""
    gateway = request.app[GATEWAY]
    exchange = gateway.orchestrator.exchange(request[REQUEST_ID], _hang_up_of(request))
    if not gateway.payloads.is_on:
        return await _serve_and_book(request, gateway, exchange, None)
    capture = Capture(gateway.payloads.max_bytes)
    try:
        return await _serve_and_book(request, gateway, exchange, capture)
    finally:
        if exchange.booked is not None:
            gateway.payloads.offer(exchange.booked, capture)


async def _serve_and_book(
    request: web.Request, gateway: Gateway, exchange: Exchange, capture: Capture | None
) -> web.StreamResponse:
    try:
        with exchange:
            request[EXCHANGE] = exchange
            principal = request[PRINCIPAL]
            exchange.admitted(Admission(principal))
            try:
                gateway.load.begin(principal.key_id, principal.priority)
                try:
                    return await _serve(request, gateway, principal, exchange, capture)
                finally:
                    gateway.load.end(principal.key_id)
            except GatewayError as error:
                exchange.failed(error, status_of(error))
                if capture is not None:
                    _note(capture, error_response(error))
                raise
    finally:
        offer_trace(gateway.traces, exchange)


async def _serve(
    request: web.Request, gateway: Gateway, principal: Principal, exchange: Exchange, capture: Capture | None
) -> web.StreamResponse:
    body = await read_json_body(request, gateway.max_body_bytes)
    if capture is not None:
        capture.request = body
    chat = read_chat_request(body)
    exchange.asked(chat)
    cohort = gateway.load.cohort
    if cohort.has_several:
        await cohort.on_its_way()
    exchange.admitted(await gateway.gatekeeper.admit(principal, chat, request.headers))
    if cohort.has_several:
        await cohort.on_its_way()
    if KEY_HEADER in request.headers:
        return await answer_once(request, gateway, exchange, chat, capture)
    if chat.stream:
        stream = await gateway.orchestrator.stream(exchange, chat, request.headers)
        return await relay(request, exchange, stream, capture)
    answer = await gateway.orchestrator.complete(exchange, chat, request.headers)
    if cohort.has_several:
        await cohort.on_its_way_back()
    exchange.answering(_OK)
    headers = answer_headers(answer, exchange)
    exchange.settle()
    if exchange.waits_for_disk:
        await exchange.durable()
    response = WholeAnswer(answer.body, answer.content_type, headers)
    if capture is not None:
        _note(capture, response)
    return response


def _note(capture: Capture, response: web.Response) -> None:
    capture.content_type = response.content_type
    if isinstance(response.body, bytes):
        capture.add(response.body)


def _hang_up_of(request: web.Request) -> Callable[[], bool]:
    """Tells whether the client has gone. It must not hold the request, which holds who asks."""
    protocol = request.protocol

    def is_gone() -> bool:
        return protocol.transport is None or protocol.transport.is_closing()

    return is_gone
