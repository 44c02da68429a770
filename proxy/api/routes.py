"""Every path, and who answers it."""

from __future__ import annotations

from aiohttp import web

from proxy.api.app_keys import GATEWAY, Gateway
from proxy.api.body import expect_continue
from proxy.api.handlers.admin import reload_config
from proxy.api.handlers.chat_completions import create_chat_completion
from proxy.api.handlers.docs import docs_asset, docs_page, openapi_json
from proxy.api.handlers.health import health, live, ready
from proxy.api.handlers.me import get_me
from proxy.api.handlers.models import get_model, list_models
from proxy.api.handlers.requests import get_request
from proxy.api.handlers.route import plan_route
from proxy.api.handlers.usage import get_usage
from proxy.api.middlewares import MIDDLEWARES
from proxy.api.middlewares.request_id import send_request_id


def add_routes(app: web.Application) -> None:
    app.router.add_post("/v1/chat/completions", create_chat_completion, expect_handler=expect_continue)
    app.router.add_post("/chat/completions", create_chat_completion, expect_handler=expect_continue)
    app.router.add_post("/v1/route", plan_route, expect_handler=expect_continue)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/models", list_models)
    app.router.add_get("/v1/models/{model_id:.+}", get_model)
    app.router.add_get("/models/{model_id:.+}", get_model)
    app.router.add_get("/v1/usage", get_usage)
    app.router.add_get("/v1/me", get_me)
    app.router.add_get("/v1/requests/{request_id}", get_request)
    app.router.add_post("/admin/config/reload", reload_config)
    app.router.add_get("/health", health)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/openapi.json", openapi_json)
    app.router.add_get("/docs", docs_page)
    app.router.add_get("/docs/{name}", docs_asset)


def create_api(gateway: Gateway) -> web.Application:
    """The HTTP application over the given use cases; knows no adapter."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=gateway.max_body_bytes)
    app[GATEWAY] = gateway
    app.on_response_prepare.append(send_request_id)
    add_routes(app)
    return app
