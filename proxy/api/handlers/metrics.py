"""GET /metrics"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY
from proxy.api.permissions import needs, open_to_all
from proxy.domain.access.permissions import Permission


@needs(Permission.USAGE_READ, whole_gateway=True)
async def metrics(request: web.Request) -> web.Response:
    """For scrapers that send a key of an auditor or administrator."""
    return await _page(request)


@open_to_all
async def metrics_without_key(request: web.Request) -> web.Response:
    """On a port of its own, which is the operator's to protect."""
    return await _page(request)


async def _page(request: web.Request) -> web.Response:
    page = await request.app[GATEWAY].metrics.page(request.headers.get("Accept", ""))
    return web.Response(body=page.body, headers={"Content-Type": page.content_type})
