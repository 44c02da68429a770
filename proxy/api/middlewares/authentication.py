"""Lets in whoever has the gateway's key."""

from __future__ import annotations

import hashlib
import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.api.app_keys import GATEWAY, PRINCIPAL
from proxy.domain.access.principals import ANONYMOUS
from proxy.domain.errors import NotAuthenticated

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/openapi.json", "/docs"})
_OPEN_PREFIX = "/docs/"


@web.middleware
async def authentication(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Raises NotAuthenticated unless the path is open, the gateway has no key, or the bearer token is the key."""
    key = request.app[GATEWAY].master_key
    if key is not None and request.path not in OPEN_PATHS and not request.path.startswith(_OPEN_PREFIX):
        _check(request.headers.get("Authorization"), key)
    request[PRINCIPAL] = ANONYMOUS
    return await handler(request)


def _check(header: str | None, key: str) -> None:
    if not header:
        raise NotAuthenticated("No API key given. Send it as 'Authorization: Bearer <key>'.")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not _equal(token.strip(), key):
        raise NotAuthenticated("Incorrect API key given.")


def _equal(given: str, key: str) -> bool:
    """In a time that depends on neither: digests have one length, and headers may hold bytes that are no text."""
    return hmac.compare_digest(_digest(given), _digest(key))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
