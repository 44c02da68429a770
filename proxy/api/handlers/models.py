"""GET /v1/models and GET /v1/models/{id}"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY
from proxy.domain.errors import ModelNotFound


async def list_models(request: web.Request) -> web.Response:
    """What the gateway serves, in OpenAI's shape with the upstream's extra members."""
    return web.json_response({"object": "list", "data": list(await request.app[GATEWAY].models.list_models())})


async def get_model(request: web.Request) -> web.Response:
    """One of them; ids may hold slashes."""
    model_id = request.match_info["model_id"]
    model = await request.app[GATEWAY].models.get_model(model_id)
    if model is None:
        raise ModelNotFound(model_id)
    return web.json_response(model)
