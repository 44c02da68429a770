"""GET /openapi.json, GET /docs and GET /docs/{name}: the API's description, and Swagger UI over it.

Swagger UI's files come from the package swagger-ui-py, so that the page works without any other host.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from aiohttp import web

from proxy.api.openai.schemas import openapi_document
from proxy.api.permissions import open_to_all
from proxy.domain.errors import RouteNotFound

_STATIC: Final = Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
_SCRIPT, _STYLES, _PNG = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "image/png"
_ASSETS: Final = {
    "swagger-ui.css": _STYLES,
    "index.css": _STYLES,
    "swagger-ui-bundle.js": _SCRIPT,
    "favicon-16x16.png": _PNG,
    "favicon-32x32.png": _PNG,
}
_ASSET_HEADERS: Final = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}

_PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>LLM Gateway: API</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="stylesheet" href="/docs/index.css">
  <link rel="icon" type="image/png" sizes="32x32" href="/docs/favicon-32x32.png">
  <link rel="icon" type="image/png" sizes="16x16" href="/docs/favicon-16x16.png">
  <script src="/docs/swagger-ui-bundle.js" defer></script>
  <script src="/docs/initializer.js" defer></script>
</head>
<body>
  <div id="swagger-ui"></div>
  <noscript>This page needs JavaScript; it shows <a href="/openapi.json">/openapi.json</a>.</noscript>
</body>
</html>
"""
_PAGE_HEADERS: Final = {
    # Swagger UI draws its icons from data: URLs.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# Without `validatorUrl: null`, Swagger UI sends the document's address to a validator on the internet.
_INITIALIZER: Final = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""


@open_to_all
async def openapi_json(_request: web.Request) -> web.Response:
    """The OpenAPI document."""
    return web.Response(
        body=_encoded_document(), content_type="application/json", headers={"Cache-Control": "no-cache"}
    )


@open_to_all
async def docs_page(_request: web.Request) -> web.Response:
    """The page; everything on it comes from this server, and its policy lets nothing else in."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_PAGE_HEADERS)


@open_to_all
async def docs_asset(request: web.Request) -> web.StreamResponse:
    """A script, style sheet or icon of the page. Raises RouteNotFound for any other name."""
    name = request.match_info["name"]
    if name == "initializer.js":
        return web.Response(body=_INITIALIZER.encode(), headers={**_ASSET_HEADERS, "Content-Type": _SCRIPT})
    if name not in _ASSETS:
        raise RouteNotFound(f"Unknown path {request.path}. The page is at /docs.")
    return web.FileResponse(_STATIC / name, headers={**_ASSET_HEADERS, "Content-Type": _ASSETS[name]})


@cache
def _encoded_document() -> bytes:
    return json.dumps(openapi_document()).encode()
