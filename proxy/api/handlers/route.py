"""POST /v1/route"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.body import read_json_body
from proxy.api.openai.envelope import read_chat_request
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission


@needs(Permission.MODELS_READ, "route")
async def plan_route(request: web.Request) -> web.Response:
    """What a chat completion would do now: whom it would ask, in which order, and why not others. Asks nobody."""
    gateway = request.app[GATEWAY]
    body = await read_json_body(request, gateway.max_body_bytes)
    chat = read_chat_request(body)
    gateway.gatekeeper.check(request[PRINCIPAL], chat)
    planned = gateway.orchestrator.dry_run(chat, request.headers)
    return web.json_response({"object": "route", **planned})
