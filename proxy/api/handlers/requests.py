"""GET /v1/requests/{request_id}"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission
from proxy.domain.errors import RequestNotFound


@needs(Permission.USAGE_READ, "requests", whole_gateway=True)
async def get_request(request: web.Request) -> web.Response:
    """The ledger's row and its trace, by the request's id or the row's."""
    asked = request.match_info["request_id"]
    found = await request.app[GATEWAY].requests.find(asked)
    if found is None:
        raise RequestNotFound(asked)
    return web.json_response(found.as_dict())
