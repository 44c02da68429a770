"""A span around each request; part of an application only where spans are wanted."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.api.app_keys import EXCHANGE, REQUEST_ID
from proxy.application.spans import Spans

_NOT_TRACED = ("/health", "/metrics")


def spanned(spans: Spans) -> Middleware:
    """Probes and scrapes have none: they would be most of all traces."""

    @web.middleware
    async def in_a_span(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(_NOT_TRACED):
            return await handler(request)
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        with spans.serving(request.method, route, request.headers) as span:
            response = await handler(request)
            row = request[EXCHANGE].booked if EXCHANGE in request else None
            span.answered(response.status, request[REQUEST_ID], row)
            return response

    return in_a_span
