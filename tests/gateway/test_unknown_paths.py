"""What somebody is told whose client asks for a path that is none: what is meant by it, or what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.bootstrap.gateway import running_gateway
from proxy.settings import Settings
from tests.gateway.raw_http import connected, openai_error, request_bytes
from tests.gateway.refusals import GOOD
from tests.harness import HELLO, TestGateway, Upstream


async def message_of(gateway: TestGateway, path: str, method: str = "POST") -> str:
    """What a request for it is told; no client's library has a word in it."""
    async with connected(gateway.url) as connection:
        await connection.send(request_bytes(GOOD if method == "POST" else None, method=method, path=path))
        answer = await connection.answer()
    assert answer.status == 404, answer.body
    error = openai_error(answer.body)
    assert (error["type"], error["code"]) == ("invalid_request_error", "unknown_url")
    message = error["message"]
    assert isinstance(message, str)
    assert message.startswith(f"Unknown path {path}")
    return message


@pytest.mark.parametrize(
    "path",
    [
        "/v1/v1/chat/completions",
        "/v1//chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions/chat/completions",
        "/openai/v1/chat/completions",
        "/api/v1/chat/completions",
    ],
)
async def test_a_base_url_that_is_slightly_wrong(gateway: TestGateway, path: str) -> None:
    """A client appends the rest to it, and its user sees only the error."""
    message = await message_of(gateway, path)
    assert message == (
        f"Unknown path {path}: did you mean /v1/chat/completions? "
        "A client's base URL is the gateway's address and /v1, and nothing else."
    )


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/v1/models", "/openai/models"])
async def test_a_list_of_models_by_a_base_url_that_is_slightly_wrong(gateway: TestGateway, path: str) -> None:
    assert "did you mean /v1/models?" in await message_of(gateway, path, "GET")


@pytest.mark.parametrize("path", ["/openai/deployments/gpt-4o/chat/completions", "/v1/deployments/m/chat/completions"])
async def test_an_azure_client(gateway: TestGateway, path: str) -> None:
    """It has a path for each model, and sends its key in another header: no base URL would do."""
    message = await message_of(gateway, path)
    assert "did you mean /v1/chat/completions?" in message
    assert "OpenAI's client instead of Azure's" in message


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions", "/v1/audio/speech", "/v1/files", "/"])
async def test_what_of_openais_api_there_is(gateway: TestGateway, path: str) -> None:
    message = await message_of(gateway, path)
    assert "POST /v1/chat/completions and GET /v1/models" in message
    assert "did you mean" not in message
    assert "Responses" not in message


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
async def test_the_responses_api_that_newer_clients_ask_for_by_default(gateway: TestGateway, path: str) -> None:
    message = await message_of(gateway, path)
    assert "POST /v1/chat/completions and GET /v1/models" in message
    assert "set to chat completions instead of the Responses API" in message


async def test_openais_clients_show_it(gateway: TestGateway, upstream: Upstream) -> None:
    """As the exception's text, and as no reason to try again."""
    async with openai.AsyncOpenAI(base_url=str(gateway.url / "v1/v1"), api_key="any") as client:
        with pytest.raises(openai.NotFoundError, match="did you mean /v1/chat/completions"):
            await client.chat.completions.create(**HELLO)
    azure = openai.AsyncAzureOpenAI(azure_endpoint=str(gateway.url), api_key="any", api_version="2024-10-21")
    async with azure as client:
        with pytest.raises(openai.NotFoundError, match="OpenAI's client instead of Azure's"):
            await client.chat.completions.create(**HELLO)
    assert upstream.calls == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_port_that_serves_something_else(sqlite_url: str, tmp_path: Path, path: str) -> None:
    """There nothing is said to be served that is not."""
    chosen: dict[str, Any] = {"database_url": sqlite_url, "llmgateway_data_dir": str(tmp_path)}
    async with running_gateway(Settings(**chosen)) as running, TestClient(TestServer(running.metrics)) as client:
        answer = await client.post(path, json=HELLO)
        error = openai_error(await answer.read())
    assert (answer.status, error["code"]) == (404, "unknown_url")
    assert error["message"] == f"Unknown path {path} on this port."
