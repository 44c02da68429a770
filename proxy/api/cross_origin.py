"""Pages of other origins that may call models: the CORS protocol of the Fetch standard (fetch.spec.whatwg.org).

A browser asks first whether a page may send a key with a request (a preflight, without one), and lets it read answers,
errors among them, only if they say so. Cookies play no part, so a page can do nothing that it has no key for; the admin
API is never for other origins. The library for it does not tell caches that answers differ (`Vary`), fails where a head
names an origin already, and looks each request up among its routes; what is needed here is little.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from proxy.domain.access.principals import Principal, PrincipalKind
from proxy.domain.errors import NotAllowed

ANY: Final = "*"
_PATHS: Final = ("/v1/", "/chat/", "/models")
_REMEMBERED_SECONDS: Final = "7200"  # browsers keep it no longer
_HEADER_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_ON_THIS_MACHINE: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://(([a-z0-9-]+\.)*localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"
)
_METHODS: Final = ("GET", "POST")


class CrossOrigins:
    """The origins (`https://chat.example.com`) whose pages may read answers; `*` stands for all."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def allow(self, origin: str) -> bool:
        """Whether pages of that origin are meant."""
        return ANY in self._origins or origin in self._origins

    def complete(self, request: web.Request, response: web.StreamResponse) -> None:
        """What the head of an answer says to the browser."""
        if not request.path.startswith(_PATHS):
            return
        headers = response.headers
        if ANY in self._origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = ANY
        else:
            headers[hdrs.VARY] = hdrs.ORIGIN
            origin = request.headers.get(hdrs.ORIGIN)
            if origin not in self._origins:
                return
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANY

    @web.middleware
    async def preflight(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Says what the path takes. Without its origin's name in the answer's head a browser sends nothing else."""
        wish = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)
        refusal = request.match_info.http_exception
        is_preflight = request.method == hdrs.METH_OPTIONS and wish is not None and request.path.startswith(_PATHS)
        if is_preflight and isinstance(refusal, web.HTTPMethodNotAllowed):
            return web.Response(status=204, headers=_allowed(refusal.allowed_methods, request))
        return await handler(request)


def check_page(request: web.Request, principal: Principal, allowed: CrossOrigins | None) -> None:
    """Raises NotAllowed for a page from elsewhere where no key was asked for: whoever opens it would pay for it.

    A browser asks before such a page may send JSON, but not before it sends a body without a type; nor does it if the
    page's name leads here by now (DNS rebinding). It always says whose page it is when it sends something.
    """
    if principal.kind is not PrincipalKind.ANONYMOUS:
        return
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or _ON_THIS_MACHINE.fullmatch(origin) or (allowed is not None and allowed.allow(origin)):
        return
    raise NotAllowed(
        "A web page from elsewhere may not use this gateway without a key: add its origin to CORS_ALLOWED_ORIGINS, or "
        "ask for keys (LLMGATEWAY_MASTER_KEY)."
    )


def _allowed(methods: Iterable[str], request: web.Request) -> dict[str, str]:
    wished = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    allowed: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(set(methods) & set(_METHODS))),
        hdrs.ACCESS_CONTROL_MAX_AGE: _REMEMBERED_SECONDS,
    }
    if _HEADER_NAMES.fullmatch(wished):
        allowed[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wished
    return allowed
