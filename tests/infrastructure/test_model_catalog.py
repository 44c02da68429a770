"""What providers' lists of their models look like."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.endpoint import endpoint_of
from proxy.infrastructure.model_catalog import UpstreamModelCatalog

OPENAI: dict[str, Any] = {"object": "list", "data": [{"id": "a", "object": "model", "created": 5, "owned_by": "b"}]}
LLAMA_CPP = {"models": [{"name": "a", "model": "a"}], **OPENAI}
TOGETHER = [{"id": "b/c", "object": "model", "created": 5, "type": "chat", "context_length": 8192}]
CLAUDE = {"type": "model", "id": "claude-opus-5", "display_name": "Claude Opus 5", "created_at": "2026-02-04T00:00:00Z"}
ANTHROPIC = {"data": [CLAUDE], "has_more": False, "first_id": "claude-opus-5", "last_id": "claude-opus-5"}
GEMINI = {
    "name": "models/gemini-3-pro",
    "displayName": "Gemini 3 Pro",
    "inputTokenLimit": 1048576,
    "supportedGenerationMethods": ["generateContent", "countTokens"],
}
EMBEDDING = {"name": "models/gemini-embedding-001", "supportedGenerationMethods": ["embedContent"]}
GOOGLE = {"models": [EMBEDDING, GEMINI, None, {"name": 5}]}


@pytest.mark.parametrize(
    ("kind", "answer", "query", "expected"),
    [
        ("openai", OPENAI, {}, OPENAI["data"]),
        ("openai", LLAMA_CPP, {}, OPENAI["data"]),
        ("openai", TOGETHER, {}, [{**TOGETHER[0], "owned_by": "b"}]),
        ("anthropic", ANTHROPIC, {"limit": "1000"}, [{**CLAUDE, "object": "model", "created": 0}]),
        ("google", GOOGLE, {"pageSize": "1000"}, [{**GEMINI, "id": "gemini-3-pro", "object": "model", "created": 0}]),
    ],
)
async def test_each_providers_list_is_read(
    kind: str, answer: Any, query: dict[str, str], expected: list[dict[str, Any]]
) -> None:
    """And asked for as a whole: Anthropic gives twenty at a time, Google fifty."""
    queries: list[dict[str, str]] = []

    async def models(request: web.Request) -> web.Response:
        queries.append(dict(request.query))
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/{version}/models", models)
    async with TestServer(app) as server, ClientSession() as session:
        base_url = {"google": "/v1beta"}.get(kind, "/v1")
        endpoint = endpoint_of(WireSettings("p", str(server.make_url(base_url)), "k"), kind)
        listed = await UpstreamModelCatalog(session, endpoint, None, 60).list_models()
    assert queries == [query]
    assert [{"owned_by": model["owned_by"], **wanted} for model, wanted in zip(listed, expected, strict=True)] == listed
