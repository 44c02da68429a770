"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission
from proxy.domain.errors import ModelNotFound


@needs(Permission.MODELS_READ, "models")
async def list_models(request: web.Request) -> web.Response:
    """What the gateway serves to the caller, in OpenAI's shape with the upstream's extra members."""
    gateway = request.app[GATEWAY]
    may_use = gateway.gatekeeper.models_of(request[PRINCIPAL])
    models = [model for model in await gateway.models.list_models() if may_use(str(model["id"]))]
    return web.json_response({"object": "list", "data": models})


@needs(Permission.MODELS_READ, "models")
async def get_model(request: web.Request) -> web.Response:
    """One of them; ids may hold slashes. Those that the caller may not use are not there for it."""
    gateway, model_id = request.app[GATEWAY], request.match_info["model_id"]
    model = (
        await gateway.models.get_model(model_id) if gateway.gatekeeper.models_of(request[PRINCIPAL])(model_id) else None
    )
    if model is None:
        raise ModelNotFound(model_id)
    return web.json_response(model)
