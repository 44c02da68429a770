"""Finds out who makes a request, and lets it through to the routes that it may use."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.api.admin.problems import is_admin_path
from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.api.cross_origin import check_page
from proxy.api.permissions import NO_STRANGERS, Open, access_to, check_access
from proxy.domain.access.principals import ANONYMOUS, PrincipalKind
from proxy.domain.errors import NotAllowed
from proxy.domain.key_like import without_keys

_logger = logging.getLogger(__name__)


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sets request[PRINCIPAL]. Raises NotAuthenticated, NotAllowed or NotServing.

    Paths that do not exist are told to those only who have shown a good key, where one is required.
    """
    route = request.match_info
    access = access_to(route.handler)
    if isinstance(access, Open):
        request[PRINCIPAL] = ANONYMOUS
        return await handler(request)
    authenticator = request.app[GATEWAY].authenticator
    principal = await authenticator.authenticate(request.headers.getall("Authorization", ()))
    request[PRINCIPAL] = principal
    if principal.kind is PrincipalKind.ANONYMOUS and is_admin_path(request.path):
        raise NotAllowed(NO_STRANGERS)
    if route.http_exception is None:
        if access is None:
            _logger.error("route without a permission", extra={"path": without_keys(request.path)})
            raise NotAllowed("This path declares no permission, so nobody may use it.")
        check_access(principal, access)
        check_page(request, principal, request.app[GATEWAY].cross_origins)
    return await handler(request)
