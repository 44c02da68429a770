"""What happens around every handler; the order and its reasons stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp.typedefs import Middleware

from proxy.api.app_keys import Gateway
from proxy.api.middlewares.access_log import access_log
from proxy.api.middlewares.authentication import authentication
from proxy.api.middlewares.errors import errors
from proxy.api.middlewares.request_id import request_id
from proxy.api.middlewares.spans import spanned

__all__ = ["middlewares"]


def middlewares(gateway: Gateway) -> Iterator[Middleware]:
    """Outermost first."""
    if gateway.spans is not None:
        yield spanned(gateway.spans)
    yield request_id  # before all that follow: errors and logs included, they name the request
    yield access_log  # sees the final status, also of errors
    yield errors  # turns what is raised below into OpenAI's error object
    if gateway.cross_origins is not None:
        yield gateway.cross_origins.preflight  # browsers send no key with it
    yield authentication  # raises for the layer above; nothing below runs for those who may not have it run
