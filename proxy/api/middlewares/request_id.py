"""Gives each request an id: the client's own when it is well-formed and no key, else a new one."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.api.app_keys import REQUEST_ID, Gateway
from proxy.domain.identifiers import new_hex
from proxy.domain.key_like import holds_key

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The id is in `request[REQUEST_ID]`, and in every answer by `head_of`."""
    request[REQUEST_ID] = id_of(request.headers)
    return await handler(request)


def id_of(headers: Mapping[str, str]) -> str:
    """The request's id, by its headers. It goes to rows, answers and logs, so it is none that looks like a key."""
    offered = headers.get(HEADER)
    if offered is None or _WELL_FORMED.fullmatch(offered) is None or holds_key(offered):
        return f"req-{new_hex()}"
    return offered


def complete_head(request: web.Request, response: web.StreamResponse, gateway: Gateway) -> None:
    """What the head of every answer has besides its own.

    Once the gateway is stopping, answers ask the client (or balancer) to make its next connection elsewhere.
    """
    headers = response.headers
    request_id = request.get(REQUEST_ID)
    if request_id is not None:
        headers[HEADER] = request_id
    headers["Server"] = "llmgateway"
    if gateway.cross_origins is not None:
        gateway.cross_origins.complete(request, response)
    if gateway.health.is_stopping():
        headers["Connection"] = "close"
        response.force_close()


def head_of(gateway: Gateway) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal handler that completes the head of every answer, since streams send theirs long before they end."""

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        complete_head(request, response, gateway)

    return complete
