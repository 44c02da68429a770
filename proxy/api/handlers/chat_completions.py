"""POST /v1/chat/completions"""

from __future__ import annotations

from aiohttp import web

from proxy.api.answer_headers import answer_headers
from proxy.api.app_keys import EXCHANGE, GATEWAY, REQUEST_ID, Gateway
from proxy.api.body import read_json_body
from proxy.api.openai.envelope import read_chat_request
from proxy.api.openai.errors import status_of
from proxy.api.streaming import relay
from proxy.application.exchange import Exchange
from proxy.domain.errors import GatewayError

_OK = 200


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Serves one request, and books it once whatever becomes of it."""
    gateway = request.app[GATEWAY]
    with gateway.orchestrator.exchange(request[REQUEST_ID], lambda: _is_gone(request)) as exchange:
        request[EXCHANGE] = exchange
        try:
            return await _serve(request, gateway, exchange)
        except GatewayError as error:
            exchange.failed(error, status_of(error))
            raise


async def _serve(request: web.Request, gateway: Gateway, exchange: Exchange) -> web.StreamResponse:
    body = await read_json_body(request, gateway.max_body_bytes, gateway.body_timeout_seconds)
    chat = read_chat_request(body)
    exchange.asked(chat)
    if chat.stream:
        return await relay(request, exchange, await gateway.orchestrator.stream(exchange, chat, request.headers))
    answer = await gateway.orchestrator.complete(exchange, chat, request.headers)
    exchange.answering(_OK)
    headers = answer_headers(answer, exchange)
    exchange.settle()
    await exchange.durable()
    return web.Response(body=answer.body, content_type=answer.content_type, headers=headers)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
