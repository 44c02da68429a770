"""GET /v1/requests/{request_id}"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission
from proxy.domain.access.visibility import sees_usage_of
from proxy.domain.errors import RequestNotFound


@needs(Permission.SELF_READ, "requests")
async def get_request(request: web.Request) -> web.Response:
    """The ledger's row and its trace, by the request's id or the row's. Others' requests are not there."""
    asked = request.match_info["request_id"]
    found = await request.app[GATEWAY].requests.find(asked, sees_usage_of(request[PRINCIPAL]))
    if found is None:
        raise RequestNotFound(asked)
    return web.json_response(found.as_dict())
