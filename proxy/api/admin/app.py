"""The application below /admin."""

from __future__ import annotations

from aiohttp import web

from proxy.api.admin import keys, operations, rules, tenants
from proxy.api.admin.context import ADMIN, AdminApi


def create_admin(admin: AdminApi) -> web.Application:
    """To be mounted at /admin of an application with the gateway's middlewares: they find out who asks."""
    app = web.Application()
    app[ADMIN] = admin
    add_admin_routes(app)
    return app


def add_admin_routes(app: web.Application) -> None:
    for part in (tenants, keys, rules, operations):
        part.add_routes(app)
