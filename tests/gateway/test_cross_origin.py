"""Pages of other origins: who may call models from a browser, and who learns nothing."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from proxy.settings import Settings
from tests.cli.test_check_config import run
from tests.conftest import StartGateway
from tests.harness import HELLO, TestGateway, Upstream, chunk, says, streams

CHAT = "https://chat.example.com"
ALLOW, EXPOSE, VARY = "access-control-allow-origin", "access-control-expose-headers", "vary"
COMPLETIONS = "v1/chat/completions"
# Of OpenAI's SDK for JavaScript in a page.
WISHES = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
}
Told = tuple[int, dict[str, str]]


async def told(gateway: TestGateway, method: str, path: str, origin: str | None = CHAT, **more: Any) -> Told:
    """Status and headers, as a browser's page of that origin gets them."""
    sent = {**({} if origin is None else {"Origin": origin}), **more.pop("headers", {})}
    async with gateway.http.request(method, gateway.url / path, headers=sent, **more) as answer:
        await answer.read()
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}


async def test_by_default_there_are_none(gateway: TestGateway) -> None:
    _, headers = await told(gateway, "POST", COMPLETIONS, "http://localhost:3000", json=HELLO)
    status, of_preflight = await told(gateway, "OPTIONS", COMPLETIONS, headers=WISHES)
    assert status == 405
    assert not {ALLOW, EXPOSE, VARY} & (headers.keys() | of_preflight.keys())


@pytest.mark.parametrize("stream", [False, True])
async def test_an_allowed_page_reads_answers_and_their_headers(
    start_gateway: StartGateway, upstream: Upstream, stream: bool
) -> None:
    gateway = await start_gateway(cors_allowed_origins=f"https://other.example.com, {CHAT}/")
    upstream.answer(streams(chunk("x"), b"data: [DONE]\n\n") if stream else says())
    status, headers = await told(gateway, "POST", COMPLETIONS, json={**HELLO, "stream": stream})
    assert (status, headers[ALLOW], headers[EXPOSE], headers[VARY]) == (200, CHAT, "*", "Origin")
    assert "access-control-allow-credentials" not in headers


async def test_it_reads_what_went_wrong(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(cors_allowed_origins=CHAT, llmgateway_master_key="sk-administrator")
    as_caller = {"Authorization": "Bearer sk-administrator"}
    for method, path, status, more in (
        ("POST", COMPLETIONS, 401, {"json": HELLO}),
        ("POST", COMPLETIONS, 403, {"json": HELLO, "headers": as_caller}),
        ("GET", COMPLETIONS, 405, {"headers": as_caller}),
        ("GET", "v1/nothing", 404, {"headers": as_caller}),
        ("GET", "v1/models", 401, {}),
    ):
        got, headers = await told(gateway, method, path, **more)
        assert (path, got, headers.get(ALLOW)) == (path, status, CHAT)


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://chat.example.com", f"{CHAT}:444", "null", None])
async def test_other_pages_read_nothing_and_caches_tell_them_apart(
    start_gateway: StartGateway, origin: str | None
) -> None:
    gateway = await start_gateway(cors_allowed_origins=CHAT)
    for method, more in (("POST", {"json": HELLO}), ("OPTIONS", {"headers": WISHES})):
        _, headers = await told(gateway, method, COMPLETIONS, origin, **more)
        assert ALLOW not in headers
        assert EXPOSE not in headers
        assert headers[VARY] == "Origin"


PAGES = ["https://evil.example.com", "http://127.0.0.1.evil.example.com:4000", "http://localhost@evil.example", "null"]


@pytest.mark.parametrize("path", [COMPLETIONS, "v1/route"])
@pytest.mark.parametrize("origin", PAGES)
@pytest.mark.parametrize("declared", [{"Content-Type": "application/json"}, {}])
async def test_a_page_from_elsewhere_spends_nothing_where_no_key_is_asked_for(
    gateway: TestGateway, upstream: Upstream, origin: str, path: str, declared: dict[str, str]
) -> None:
    """By a body that browsers let it send anywhere, or by a name that leads here, so that it is of the same origin."""
    body = json.dumps(HELLO).encode()
    skipped = [] if declared else ["Content-Type"]
    async with aiohttp.ClientSession(skip_auto_headers=skipped) as browser:
        sent = {"Origin": origin, "Host": "evil.example.com", **declared}
        async with browser.post(gateway.url / path, data=body, headers=sent) as answer:
            assert answer.status == 403
            assert "CORS_ALLOWED_ORIGINS" in (await answer.json())["error"]["message"]
    assert upstream.calls == 0


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:4000", "http://[::1]", "tauri://localhost"]
)
async def test_pages_of_this_machine_may(gateway: TestGateway, origin: str) -> None:
    assert (await told(gateway, "POST", COMPLETIONS, origin, json=HELLO))[0] == 200


async def test_allowed_pages_may_and_those_with_a_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(cors_allowed_origins=CHAT)
    assert (await told(gateway, "POST", COMPLETIONS, json=HELLO))[0] == 200
    gateway = await start_gateway(llmgateway_master_key="sk-administrator", llmgateway_master_key_calls_models=True)
    as_caller = {"Authorization": "Bearer sk-administrator"}
    assert (await told(gateway, "POST", COMPLETIONS, json=HELLO, headers=as_caller))[0] == 200


@pytest.mark.parametrize(("path", "methods"), [(COMPLETIONS, "POST"), ("v1/models", "GET"), ("models/a/b", "GET")])
async def test_a_browser_that_asks_first_needs_no_key(start_gateway: StartGateway, path: str, methods: str) -> None:
    gateway = await start_gateway(cors_allowed_origins="*", llmgateway_master_key="sk-administrator")
    status, headers = await told(gateway, "OPTIONS", path, headers=WISHES)
    assert (status, headers[ALLOW], headers["access-control-allow-methods"]) == (204, "*", methods)
    assert headers["access-control-allow-headers"] == WISHES["Access-Control-Request-Headers"]
    assert int(headers["access-control-max-age"]) > 0
    assert VARY not in headers
    assert headers["x-request-id"]


async def test_only_a_browsers_question_is_answered_without_a_key(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(cors_allowed_origins="*", llmgateway_master_key="sk-administrator")
    assert (await told(gateway, "OPTIONS", COMPLETIONS))[0] == 401
    assert (await told(gateway, "OPTIONS", "v1/nothing", headers=WISHES))[0] == 401
    odd = {**WISHES, "Access-Control-Request-Headers": "x-é"}
    assert "access-control-allow-headers" not in (await told(gateway, "OPTIONS", COMPLETIONS, headers=odd))[1]


@pytest.mark.parametrize("path", ["admin/keys", "metrics", "health", "openapi.json"])
async def test_what_is_no_call_of_a_model_is_for_no_other_origin(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_gateway(cors_allowed_origins="*", llmgateway_master_key="sk-administrator")
    for method in ("GET", "OPTIONS"):
        assert ALLOW not in (await told(gateway, method, path, headers=WISHES))[1]


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("", ()),
        (" * ", ("*",)),
        ("HTTPS://Chat.Example.com:443/,http://localhost:3000", (CHAT, "http://localhost:3000")),
        ("tauri://localhost,http://[::1]:80", ("tauri://localhost", "http://[::1]")),
    ],
)
def test_origins_are_as_browsers_send_them(given: str, origins: tuple[str, ...]) -> None:
    assert Settings(cors_allowed_origins=given).cors_allowed_origins == origins  # type: ignore[arg-type, call-arg]


@pytest.mark.parametrize(
    "given", ["chat.example.com", f"{CHAT}/app", "https://*.example.com", "null", f"{CHAT} {CHAT}"]
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="must be origins like https://"):
        Settings(cors_allowed_origins=given)  # type: ignore[arg-type, call-arg]


def test_they_are_shown_as_they_are_written() -> None:
    shown = run("check-config", CORS_ALLOWED_ORIGINS=f"{CHAT},tauri://localhost").stdout
    assert f"{CHAT}, tauri://localhost" in shown
