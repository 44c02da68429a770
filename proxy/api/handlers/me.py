"""GET /v1/me"""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission


@needs(Permission.SELF_READ, "me")
async def get_me(request: web.Request) -> web.Response:
    """Who the caller is, what it may use, and what it has used."""
    gateway, principal = request.app[GATEWAY], request[PRINCIPAL]
    may_use = gateway.gatekeeper.models_of(principal)
    names = [str(model["id"]) for model in await gateway.models.list_models()]
    models = [name for name in names if may_use(name)]
    return web.json_response(await gateway.self_service.describe(principal, models, datetime.now(UTC)))
