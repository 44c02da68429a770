"""One log line for each request, when it has ended; and a count of them."""

from __future__ import annotations

import asyncio
import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.api.app_keys import EXCHANGE, GATEWAY, REQUEST_ID
from proxy.application.observing import HttpMetrics
from proxy.domain.key_like import without_keys
from proxy.domain.raised import forget_where

_logger = logging.getLogger("proxy.access")
_QUIET_PATHS = ("/health/live", "/health/ready", "/health/accepting", "/health", "/metrics")
_NO_STATUS = 0


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Never logs bodies, query strings or headers: prompts and keys are in them. Nor keys in a path or a name."""
    started = time.perf_counter()
    status: int | str = "cancelled"
    try:
        response = await handler(request)
        status = response.status
        return response
    except asyncio.CancelledError:
        status = given_up(request)
        raise
    finally:
        resource = request.match_info.route.resource
        route = None if resource is None else resource.canonical
        note_answered(request, request.app[GATEWAY].metrics, route, status, started)


def given_up(request: web.Request) -> str:
    """What there is to say instead of a status when a request is cancelled; its way is forgotten, if it is booked."""
    exchange = request.get(EXCHANGE)
    if exchange is not None and exchange.booked is not None:
        forget_where(*(attempt.error for attempt in exchange.walked))
        exchange.walked = ()  # the cancellation goes on, and will remember the request by further frames
    is_gone = request.transport is None or request.transport.is_closing()
    return "client disconnected" if is_gone else "interrupted"


def note_answered(
    request: web.Request, metrics: HttpMetrics, route: str | None, status: int | str, started: float
) -> None:
    """Counts a request that has ended, and logs it. A status in words is why there was none."""
    metrics.responded(route, status if isinstance(status, int) else _NO_STATUS)
    level = logging.DEBUG if request.path in _QUIET_PATHS else logging.INFO
    if _logger.isEnabledFor(level):
        _logger.log(level, "request", extra=_facts(request, route, status, time.perf_counter() - started))


def _facts(request: web.Request, route: str | None, status: int | str, seconds: float) -> dict[str, object]:
    path = request.path
    facts: dict[str, object] = {
        "request_id": request[REQUEST_ID],
        "method": request.method,
        "path": path if path == route else without_keys(path),  # nearly always nothing in it is the client's
        "status": status,
        "duration_ms": round(seconds * 1000, 1),
    }
    row = request[EXCHANGE].booked if EXCHANGE in request else None
    if row is not None:
        cost = row.cost()
        facts |= {
            "outcome": row.status.value,
            "model": without_keys(row.model.value),
            "stream": row.stream,
            "attempts": row.attempts,
            "input_tokens": row.input_tokens.value,
            "output_tokens": row.output_tokens.value,
            "cost_usd": None if cost is None else f"{cost.usd:f}",
        }
    return facts
