"""Every path, and who answers it."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from proxy.api.admin.app import create_admin
from proxy.api.admin.context import AdminApi
from proxy.api.admin.problems import PREFIX
from proxy.api.app_keys import GATEWAY, Gateway
from proxy.api.body import expect_continue
from proxy.api.direct import DIRECT, direct_routes
from proxy.api.handlers.chat_completions import create_chat_completion
from proxy.api.handlers.docs import docs_asset, docs_page, openapi_json
from proxy.api.handlers.health import accepting, health, live, ready
from proxy.api.handlers.me import get_me
from proxy.api.handlers.metrics import metrics, metrics_without_key
from proxy.api.handlers.models import get_model, list_models
from proxy.api.handlers.requests import get_request
from proxy.api.handlers.route import plan_route
from proxy.api.handlers.usage import get_usage
from proxy.api.middlewares import middlewares
from proxy.api.middlewares.request_id import head_of

COMPLETIONS: Final = ("/v1/chat/completions", "/chat/completions")


def add_routes(app: web.Application) -> None:
    for path in COMPLETIONS:
        app.router.add_post(path, create_chat_completion, expect_handler=expect_continue)
    app.router.add_post("/v1/route", plan_route, expect_handler=expect_continue)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/models", list_models)
    app.router.add_get("/v1/models/{model_id:.+}", get_model)
    app.router.add_get("/models/{model_id:.+}", get_model)
    app.router.add_get("/v1/usage", get_usage)
    app.router.add_get("/v1/me", get_me)
    app.router.add_get("/v1/requests/{request_id}", get_request)
    app.router.add_get("/metrics", metrics)
    add_health_routes(app)
    app.router.add_get("/openapi.json", openapi_json)
    app.router.add_get("/docs", docs_page)
    app.router.add_get("/docs/{name}", docs_asset)


def add_health_routes(app: web.Application) -> None:
    app.router.add_get("/health", health)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/health/accepting", accepting)


def create_api(gateway: Gateway, admin: AdminApi | None) -> web.Application:
    """The HTTP application over the given use cases; knows no adapter. Without `admin` there is nothing at /admin."""
    app = _application(gateway)
    add_routes(app)
    app[DIRECT] = direct_routes(app, create_chat_completion, COMPLETIONS)
    if admin is not None:
        app.add_subapp(f"{PREFIX}/", create_admin(admin))
    return app


def create_admin_site(gateway: Gateway, admin: AdminApi) -> web.Application:
    """The admin API and health alone, for a port of their own."""
    app = _application(gateway)
    add_health_routes(app)
    app.add_subapp(f"{PREFIX}/", create_admin(admin))
    return app


def create_metrics_site(gateway: Gateway) -> web.Application:
    """What scrapers and probes ask for, without a key, on a port of their own."""
    app = _application(gateway)
    app.router.add_get("/metrics", metrics_without_key)
    app.router.add_get("/health/live", live)
    return app


def _application(gateway: Gateway) -> web.Application:
    app = web.Application(middlewares=middlewares(gateway), client_max_size=gateway.max_body_bytes)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(head_of(gateway))
    return app
