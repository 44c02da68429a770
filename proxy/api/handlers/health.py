"""GET /health, /health/live, /health/ready and /health/accepting: need no key and wait for nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from proxy import __version__
from proxy.api.app_keys import GATEWAY, Gateway
from proxy.api.permissions import open_to_all
from proxy.application.health import merged
from proxy.application.ports import HealthReport

_STARTED = time.monotonic()
_UNAVAILABLE = 503


@open_to_all
async def health(request: web.Request) -> web.Response:
    """Everything that is known of the gateway's parts, over all its workers; always 200, read `status`."""
    gateway = request.app[GATEWAY]
    return web.json_response(merged(health_report(gateway), gateway.siblings, os.getpid()))


def health_report(gateway: Gateway) -> dict[str, Any]:
    """Of this process alone, with what makes one report of it and those of other workers."""
    report, configuration = gateway.health.report(), gateway.configuration.state()
    degraded = list(report.degraded)
    if gateway.idempotency.trouble is not None:
        degraded.append(gateway.idempotency.trouble)
    degraded += (f"configuration not loaded: {problem}" for problem in configuration["problems"])
    return {
        "status": "unavailable" if report.cannot_serve else "degraded" if degraded else "ok",
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - _STARTED, 1),
        "problems": [*report.cannot_serve, *degraded],
        "database": report.database,
        "ledger": report.ledger,
        "limits": report.limits,
        "idempotency": gateway.idempotency.state(),
        "load": gateway.load.state(),
        "providers": report.providers,
        "deployments": report.deployments,
        "recent_calls": report.recent_calls,
        "gives_way": report.gives_way,
        "configuration": configuration,
        "payloads": gateway.payloads.state(),
        "traces": gateway.traces.state(),
        "metrics": {"llmgateway_unpriced_requests": report.unpriced_requests},
    }


@open_to_all
async def live(_request: web.Request) -> web.Response:
    """The process runs and its event loop turns."""
    return web.json_response({"status": "alive"})


@open_to_all
async def ready(request: web.Request) -> web.Response:
    """Whether a request would be served now; 503 with the reasons if not."""
    report = request.app[GATEWAY].health.report()
    return _readiness(report, report.cannot_serve)


@open_to_all
async def accepting(request: web.Request) -> web.Response:
    """Whether a balancer should choose this gateway; 503 with the reasons if not.

    A provider that is away is no reason. It is away for all gateways, and if a balancer left them all out, clients
    would be told nothing of it, and no refusal booked.
    """
    report = request.app[GATEWAY].health.report()
    return _readiness(report, report.cannot_accept)


def _readiness(report: HealthReport, reasons: Sequence[str]) -> web.Response:
    able = {"can_serve": not report.cannot_serve, "can_book": report.can_book}
    if reasons:
        return web.json_response({"status": "not ready", **able, "reasons": list(reasons)}, status=_UNAVAILABLE)
    return web.json_response({"status": "ready", **able, "degraded": list(report.degraded)})
