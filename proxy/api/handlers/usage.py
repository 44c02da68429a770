"""GET /v1/usage"""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.permissions import needs
from proxy.domain.access.permissions import Permission
from proxy.domain.access.visibility import sees_usage_of
from proxy.domain.usage_report import usage_query


@needs(Permission.SELF_READ, "usage")
async def get_usage(request: web.Request) -> web.Response:
    """Requests, tokens, cost and times, grouped by `by`, from `since` (included) to `until` (excluded).

    All that the caller may see, or what the named key, team and organisation have of it.
    """
    arguments = {name: request.query.getall(name) for name in request.query}
    query = usage_query(arguments, sees_usage_of(request[PRINCIPAL]))
    report = await request.app[GATEWAY].usage.report(query)
    return web.json_response(report.as_dict())
