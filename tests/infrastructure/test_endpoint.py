"""Where providers are asked for what costs nothing."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.endpoint import endpoint_of
from proxy.infrastructure.health import HttpHealthChecker


@pytest.mark.parametrize(
    ("kind", "base_path", "path", "key"),
    [
        ("openai", "/v1/", "/v1/models", ("Authorization", "Bearer k")),
        ("openrouter", "/api/v1", "/api/v1/models", ("Authorization", "Bearer k")),
        ("azure", "/openai/v1", "/openai/v1/models", ("api-key", "k")),
        ("anthropic", "", "/v1/models", ("x-api-key", "k")),
        ("anthropic", "/v1", "/v1/models", ("x-api-key", "k")),
        ("google", "/", "/v1beta/models", ("x-goog-api-key", "k")),
    ],
)
async def test_each_kind_is_asked_for_its_models_in_its_own_way(
    kind: str, base_path: str, path: str, key: tuple[str, str]
) -> None:
    async def models(request: web.Request) -> web.Response:
        is_known = request.headers.get(key[0]) == key[1] and request.headers["X-Own"] == "1"
        return web.json_response({}, status=200 if is_known else 401)

    app = web.Application()
    app.router.add_get(path, models)
    async with TestServer(app) as server, ClientSession() as session:
        wire = WireSettings("p", str(server.make_url("/")).rstrip("/") + base_path, "k", headers={"X-Own": "1"})
        checker = HttpHealthChecker(session, lambda: {"p": endpoint_of(wire, kind)})
        assert await checker.is_healthy("p")


def test_anthropic_is_told_which_version_of_its_api_is_meant() -> None:
    wire = WireSettings("p", "https://api.anthropic.com", "k")
    assert endpoint_of(wire, "anthropic").headers["anthropic-version"] == "2023-06-01"
