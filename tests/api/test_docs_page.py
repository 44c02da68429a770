"""The documentation page: complete, from this server alone, and closed to everything else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from yarl import URL

from proxy.api.openai.schemas import openapi_document
from tests.conftest import StartGateway
from tests.harness import TestGateway

LOADED = {
    "/docs/swagger-ui.css": "text/css",
    "/docs/index.css": "text/css",
    "/docs/favicon-32x32.png": "image/png",
    "/docs/favicon-16x16.png": "image/png",
    "/docs/swagger-ui-bundle.js": "text/javascript",
    "/docs/initializer.js": "text/javascript",
}


@dataclass
class Seen(HTMLParser):
    """What a page loads, links to, and holds in line."""

    loaded: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    in_line: list[str] = field(default_factory=list)
    within: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        for name, value in attrs:
            if name in ("src", "href"):
                (self.linked if tag == "a" else self.loaded).append(value or "")
            if name == "style" or name.startswith("on"):
                self.in_line.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within in ("script", "style") and data.strip():
            self.in_line.append(data)


async def fetched(gateway: TestGateway, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path is sent as it is written."""
    async with gateway.http.get(URL(str(gateway.url)[:-1] + path, encoded=True), headers=headers) as response:
        return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()


async def seen(gateway: TestGateway) -> Seen:
    status, headers, body = await fetched(gateway, "/docs")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    page = Seen()
    page.feed(body.decode())
    return page


async def test_page_loads_its_parts_from_this_server_only(gateway: TestGateway) -> None:
    page = await seen(gateway)

    assert set(page.loaded) == set(LOADED)
    assert page.linked == ["/openapi.json"]


async def test_page_has_no_script_and_no_style_in_line(gateway: TestGateway) -> None:
    """The policy would keep such a script from running."""
    assert (await seen(gateway)).in_line == []


async def test_policy_of_the_page_allows_no_other_source(gateway: TestGateway) -> None:
    _, headers, _ = await fetched(gateway, "/docs")

    directives = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
    sources = {source for value in directives.values() for source in value.split()}
    assert directives["default-src"] == "'self'"
    assert not {"script-src", "style-src", "connect-src"} & set(directives), "default-src speaks for them"
    assert sources == {"'self'", "'none'", "data:"}
    assert [name for name, value in directives.items() if "data:" in value] == ["img-src"]
    assert directives["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", LOADED)
async def test_parts_of_the_page_have_the_right_type_and_may_be_cached(gateway: TestGateway, path: str) -> None:
    status, headers, body = await fetched(gateway, path)

    assert status == 200
    assert headers["content-type"].split(";")[0] == LOADED[path]
    assert headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch(r"public, max-age=\d+", headers["cache-control"])
    assert body


async def test_unchanged_part_is_not_sent_again(gateway: TestGateway) -> None:
    _, headers, _ = await fetched(gateway, "/docs/swagger-ui-bundle.js")

    status, _, body = await fetched(gateway, "/docs/swagger-ui-bundle.js", **{"If-None-Match": headers["etag"]})

    assert (status, body) == (304, b"")


@pytest.mark.parametrize("path", ["/docs/swagger-ui.css", "/docs/index.css"])
async def test_styles_refer_to_no_other_host(gateway: TestGateway, path: str) -> None:
    _, _, body = await fetched(gateway, path)

    assert re.findall(rb"""@import|url\(\s*(?!["']?data:)""", body) == []


async def test_script_shows_the_document_and_asks_no_validator(gateway: TestGateway) -> None:
    _, _, script = await fetched(gateway, "/docs/initializer.js")

    [url] = re.findall(r'url: "([^"]+)"', script.decode())
    status, document = await gateway.get(url)
    assert status == 200
    assert document["paths"].keys() == openapi_document()["paths"].keys()
    assert b"validatorUrl: null" in script
    assert b"//" not in script


@pytest.mark.parametrize(
    "name",
    [
        "swagger-initializer.js",
        "swagger-editor.js",
        "oauth2-redirect.html",
        "LICENSE",
        "initializer.js%00",
        "Swagger-UI.css",
        "..%2Fcore.py",
        "..%2fstatic%2fswagger-ui.css",
        "..%5Ccore.py",
        "%2Fetc%2Fpasswd",
        "%2e%2e",
        ".",
        "",
    ],
)
async def test_nothing_else_is_served(gateway: TestGateway, name: str) -> None:
    status, headers, body = await fetched(gateway, f"/docs/{name}")

    assert status == 404
    assert headers["content-type"].split(";")[0] == "application/json"
    assert b'"unknown_url"' in body


async def test_page_and_its_parts_need_no_key(start_gateway: StartGateway) -> None:
    """Who has the key types it into the page."""
    gateway = await start_gateway(llmgateway_master_key="sk-gateway")

    statuses = {path: (await fetched(gateway, path))[0] for path in ["/docs", *LOADED]}

    assert set(statuses.values()) == {200}
