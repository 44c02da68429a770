"""The way of a chat completion around aiohttp's application: the same middlewares' work, without the machinery.

A request through the application is resolved among all routes, gets a match of its own, and passes through a coroutine
for each middleware: 15 µs and more, of which nothing can come out differently for a POST to one fixed path. Here
the parts that the middlewares are made of stand one below the other. What is added to a middleware belongs into such a
part, so that both ways have it; tests/gateway/test_direct.py compares what comes out of them.

The server takes this way for what is plainly such a request (`proxy/server/direct.py`); with spans nobody does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from proxy.api.app_keys import GATEWAY, PRINCIPAL, REQUEST_ID
from proxy.api.cross_origin import check_page
from proxy.api.middlewares.access_log import given_up, note_answered
from proxy.api.middlewares.errors import error_answer
from proxy.api.middlewares.request_id import id_of
from proxy.api.permissions import RouteAccess, access_to, check_access
from proxy.application.access import Presented

DirectHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DIRECT: Final = web.AppKey("direct", Mapping[str, DirectHandler])


def direct_routes(app: web.Application, handler: DirectHandler, paths: tuple[str, ...]) -> Mapping[str, DirectHandler]:
    """For POST to these paths, which are routes of the application to this handler; none where spans are wanted."""
    if app[GATEWAY].spans is not None:
        return {}
    return {path: _DirectRoute(app, path, handler).serve for path in paths}


class _DirectRoute:
    """One path. `access_to(handler)` must be a RouteAccess."""

    def __init__(self, app: web.Application, path: str, handler: DirectHandler) -> None:
        access = access_to(handler)
        assert isinstance(access, RouteAccess)  # noqa: S101  # said of a handler of ours
        self._app = app
        self._path = path
        self._handler = handler
        self._access = access
        self._match: web.UrlMappingMatchInfo | None = None

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """As the middlewares would, in their order: request id, access log, errors, authentication."""
        if self._match is None:  # one that has been found is a mapping, and empty
            self._match = await self._resolved(request)
        request._match_info = self._match  # noqa: SLF001  # as Application._handle does
        gateway = self._app[GATEWAY]
        started = time.perf_counter()
        request[REQUEST_ID] = id_of(request.headers)
        status: int | str = "cancelled"
        try:
            try:
                authorizations = request.headers.getall("Authorization", ())
                principal = None
                if len(authorizations) == 1:  # two are none: see Authenticator
                    principal = gateway.authenticator.at_once(_presented(request.protocol, authorizations[0]))
                if principal is None:
                    principal = await gateway.authenticator.authenticate(authorizations)
                request[PRINCIPAL] = principal
                check_access(principal, self._access)
                check_page(request, principal, gateway.cross_origins)
                response = await self._handler(request)
            except Exception as problem:  # noqa: BLE001  # whatever it is, it is answered
                response = error_answer(request, problem)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = given_up(request)
            raise
        finally:
            note_answered(request, gateway.metrics, self._path, status, started)

    async def _resolved(self, request: web.Request) -> web.UrlMappingMatchInfo:
        """The application's own match for the path, which is the same for all requests."""
        match = await self._app.router.resolve(request)
        match.add_app(self._app)
        match.freeze()
        return match


def _presented(connection: Any, authorization: str) -> Presented:
    """A client shows the same key with each request: its hash is remembered as long as the connection lasts."""
    last = connection.remembered
    if isinstance(last, Presented) and last.authorization == authorization:
        return last
    connection.remembered = presented = Presented.by(authorization)
    return presented
