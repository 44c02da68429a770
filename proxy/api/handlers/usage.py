"""GET /v1/usage"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission
from proxy.domain.usage_report import usage_query


@needs(Permission.USAGE_READ, "usage", whole_gateway=True)
async def get_usage(request: web.Request) -> web.Response:
    """Requests, tokens, cost and times, grouped by `by`, from `since` (included) to `until` (excluded)."""
    query = usage_query({name: request.query.getall(name) for name in request.query})
    report = await request.app[GATEWAY].usage.report(query)
    return web.json_response(report.as_dict())
