"""POST /admin/config/reload"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission


@needs(Permission.CONFIG_WRITE)
async def reload_config(request: web.Request) -> web.Response:
    """Loads the configuration file anew, or tells all that is wrong with it and changes nothing."""
    return web.json_response(dict(await request.app[GATEWAY].configuration.reload()))
