"""Every route says what it asks of its callers; one that does not is nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.api.permissions import OPEN, RouteAccess, access_to, check_access, needs
from proxy.bootstrap.gateway import running_gateway
from proxy.domain.access.permissions import Permission
from proxy.domain.access.principals import ANONYMOUS
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.errors import NotAllowed
from proxy.settings import Settings
from tests.conftest import StartGateway

OPEN_PATHS = {
    "/health",
    "/health/live",
    "/health/ready",
    "/health/accepting",
    "/openapi.json",
    "/docs",
    "/docs/{name}",
}


def settings_of(database_url: str, directory: Path, **more: Any) -> Settings:
    return Settings(**{"database_url": database_url, "llmgateway_data_dir": str(directory), **more})


def routes_of(app: web.Application) -> Iterator[tuple[str, str, object]]:
    """Method, path and handler of all routes, those of sub-applications too."""
    for resource in app.router.resources():
        if isinstance(resource, web.PrefixedSubAppResource):
            yield from routes_of(resource._app)  # aiohttp tells it in no other way
            continue
        for route in resource:
            yield route.method, resource.canonical, route.handler


async def test_every_route_declares_what_it_asks_for(sqlite_url: str, tmp_path: Path) -> None:
    settings = settings_of(sqlite_url, tmp_path)
    async with running_gateway(settings) as gateway:
        routes = list(routes_of(gateway.app))
    assert len(routes) > 15
    assert [(method, path) for method, path, handler in routes if access_to(handler) is None] == []
    assert {path for _, path, handler in routes if access_to(handler) is OPEN} == OPEN_PATHS
    for method, path, handler in routes:
        access = access_to(handler)
        if path.startswith("/admin"):
            assert isinstance(access, RouteAccess), (method, path)
        if isinstance(access, RouteAccess) and method not in ("GET", "HEAD") and path.startswith("/admin"):
            assert access.permission.value.endswith(":write"), (method, path)


async def undeclared(_request: web.Request) -> web.Response:
    return web.Response(text="secret")


@needs(Permission.KEYS_READ)
async def declared(_request: web.Request) -> web.Response:
    return web.Response(text="fine")


@pytest.mark.parametrize("prefix", ["", "/sub"])
@pytest.mark.parametrize("key", [None, "sk-master", "sk-wrong"])
async def test_an_undeclared_route_is_nobodys(sqlite_url: str, tmp_path: Path, prefix: str, key: str | None) -> None:
    """In a sub-application, too."""
    settings = settings_of(sqlite_url, tmp_path, llmgateway_master_key="sk-master")
    async with running_gateway(settings) as gateway:
        app = web.Application() if prefix else gateway.app
        app.router.add_get("/undeclared", undeclared)
        app.router.add_get("/declared", declared)
        if prefix:
            gateway.app.add_subapp(prefix, app)
        server = TestServer(gateway.app)
        await server.start_server(access_log=None)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            statuses = {}
            for name in ("undeclared", "declared"):
                async with http.get(server.make_url(f"{prefix}/{name}")) as response:
                    statuses[name] = response.status
                    assert "secret" not in await response.text()
        await server.close()
    good = key == "sk-master"
    assert statuses == {"undeclared": 403 if good else 401, "declared": 200 if good else 401}


async def test_no_method_gets_by_without_a_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-master")
    for path in ("v1/chat/completions", "v1/models", "v1/usage", "admin/config/reload", "nowhere", "health/nowhere"):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
            async with gateway.http.request(method, gateway.url / path) as response:
                assert response.status == 401, (method, path)


def test_what_is_of_the_whole_gateway_is_for_those_who_reach_all_of_it() -> None:
    access = RouteAccess(Permission.USAGE_READ, whole_gateway=True)
    check_access(ANONYMOUS, access)
    with pytest.raises(NotAllowed):
        check_access(replace(ANONYMOUS, reach=Subject(Scope.TEAM, "x")), access)
