"""OpenRouterChatCompletion as a plain Semantic Kernel connector: what it makes of answers and errors."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from semantic_kernel.contents import AuthorRole, FinishReason

from proxy.domain.errors import (
    CircuitOpen,
    InvalidUpstreamAnswer,
    PermanentUpstreamError,
    TransientUpstreamError,
    UpstreamError,
)
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from proxy.infrastructure.connector import DirectConnector
from tests.harness import COMPLETION, Upstream, cut, fails, says, stall
from tests.infrastructure.conftest import API_KEY, Connect, Connector, ask, hello, settings

# Answers


async def test_an_answer_becomes_a_content_with_its_facts(service: OpenRouterChatCompletion) -> None:
    content = await ask(service)
    assert content.role is AuthorRole.ASSISTANT
    assert content.content == "Hi there!"
    assert content.finish_reason is FinishReason.STOP
    assert content.ai_model_id == "z-ai/glm-4.6"
    assert content.inner_content == COMPLETION["choices"][0]
    assert content.metadata["input_tokens"] == 10
    assert content.metadata["output_tokens"] == 5
    assert content.metadata["cost"] == Decimal("0.00123")
    assert content.metadata["generation_id"] == "gen-1"
    assert content.metadata["provider"] == "Test"
    assert content.metadata["model"] == "z-ai/glm-4.6"


async def test_cached_and_reasoning_tokens_are_told(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 32},
    }
    upstream.answer(says({**COMPLETION, "usage": usage}))
    metadata = (await ask(service)).metadata
    assert (metadata["cached_tokens"], metadata["reasoning_tokens"]) == (64, 32)
    assert metadata["cost"] is None


async def test_the_model_that_served_is_told(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(says({**COMPLETION, "model": "z-ai/glm-4.6-20261001"}))
    assert (await ask(service)).metadata["model"] == "z-ai/glm-4.6-20261001"


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": "many"}, "none"]
)
async def test_a_missing_usage_is_an_error_in_the_log_and_nowhere_else(
    service: OpenRouterChatCompletion, upstream: Upstream, caplog: pytest.LogCaptureFixture, usage: Any
) -> None:
    upstream.answer(says({key: value for key, value in {**COMPLETION, "usage": usage}.items() if value is not None}))
    content = await ask(service)
    assert content.content == "Hi there!"
    assert not {"input_tokens", "output_tokens", "cost"} & set(content.metadata)
    assert content.metadata["generation_id"] == "gen-1"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "usage" in record.message


async def test_each_choice_becomes_a_content(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    """Also with a finish reason that Semantic Kernel has no word for."""
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "length"},
        {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "error"},
        {"index": 2, "message": {"role": "assistant", "content": ""}, "finish_reason": None},
    ]
    upstream.answer(says({**COMPLETION, "choices": choices}))
    contents = await service.get_chat_message_contents(hello(), settings(n=3))
    assert [content.content for content in contents] == ["a", "b", ""]
    assert [content.finish_reason for content in contents] == [FinishReason.LENGTH, None, None]
    assert [content.inner_content for content in contents] == choices


# Errors


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520, 524, 529])
async def test_transient_errors_have_a_type(connector: Connector, upstream: Upstream, status: int) -> None:
    upstream.answer(fails(status, {"Retry-After": "7"}, message="come back later"))
    with pytest.raises(TransientUpstreamError) as caught:
        await ask(connector.service)
    error = caught.value
    assert (error.status, error.retry_after_seconds) == (status, 7.0)
    assert str(error) == "come back later"
    assert json.loads(error.body)["error"]["code"] == status
    assert upstream.calls == 4
    assert connector.time.waits == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 413, 422])
async def test_permanent_errors_have_another_type(connector: Connector, upstream: Upstream, status: int) -> None:
    upstream.answer(fails(status, message="no", metadata={"reasons": ["x"]}), says())
    with pytest.raises(PermanentUpstreamError) as caught:
        await ask(connector.service)
    error = caught.value
    assert (error.status, error.retry_after_seconds) == (status, None)
    assert error.details["metadata"] == {"reasons": ["x"]}
    assert json.loads(error.body)["error"]["message"] == "no"
    assert (upstream.calls, connector.time.waits) == (1, [])


@pytest.mark.parametrize(
    ("code", "kind", "calls"), [(503, TransientUpstreamError, 4), (403, PermanentUpstreamError, 1)]
)
async def test_an_error_inside_a_200_is_an_error(
    connector: Connector, upstream: Upstream, code: int, kind: type[UpstreamError], calls: int
) -> None:
    upstream.answer(says({"error": {"code": code, "message": "in the body"}}))
    with pytest.raises(kind, match="in the body") as caught:
        await ask(connector.service)
    assert caught.value.status == code
    assert upstream.calls == calls


@pytest.mark.parametrize(
    "body", [b"<html>hello</html>", b"", b"[]", b'"text"', b"{", b"{}", b'{"choices":{}}', b"\xff\xfe", b"null"]
)
async def test_what_is_no_completion_is_an_error(
    service: OpenRouterChatCompletion, upstream: Upstream, body: bytes
) -> None:
    upstream.answer(says(body))
    with pytest.raises(InvalidUpstreamAnswer) as caught:
        await ask(service)
    assert caught.value.body == body
    assert upstream.calls == 1


@pytest.mark.parametrize("choices", [[None], [1], ["a"], [{"message": "text"}], [{"message": {"content": [1]}}]])
async def test_choices_of_no_known_shape_are_an_upstream_error(
    service: OpenRouterChatCompletion, upstream: Upstream, choices: Any
) -> None:
    upstream.answer(says({**COMPLETION, "choices": choices}))
    with pytest.raises(UpstreamError):
        await ask(service)


async def test_an_error_page_is_told_as_its_status(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(says(b"<html>Bad gateway</html>", status=502))
    with pytest.raises(TransientUpstreamError, match="502") as caught:
        await ask(service)
    assert caught.value.body == b"<html>Bad gateway</html>"


async def test_lost_connections_and_time_outs_are_transient(connect: Connect, upstream: Upstream) -> None:
    async def reset(request: web.Request) -> web.StreamResponse:
        await cut(request)
        return web.Response()

    async def silent(request: web.Request) -> web.StreamResponse:
        await stall(request)
        return web.Response()

    for answering, kind, seconds in [(reset, "connection", 5.0), (silent, "timeout", 0.05)]:
        connector = await connect(answer_timeout_seconds=seconds)
        upstream.answer(answering)
        with pytest.raises(TransientUpstreamError) as caught:
            await ask(connector.service)
        assert (caught.value.status, caught.value.kind) == (None, kind)
        assert upstream.calls == 4


async def test_a_refused_connection_is_transient(connect: Connect) -> None:
    connector = await connect(base_url="http://127.0.0.1:1/api/v1")
    with pytest.raises(TransientUpstreamError) as caught:
        await ask(connector.service)
    assert caught.value.kind == "connection"
    assert connector.time.waits == [1.0, 2.0, 4.0]


async def test_an_open_circuit_has_a_type_of_its_own(connector: Connector, upstream: Upstream) -> None:
    upstream.answer(fails(503))
    for _ in range(5):
        with pytest.raises(TransientUpstreamError):
            await ask(connector.service)
    with pytest.raises(CircuitOpen):
        await ask(connector.service)
    assert upstream.calls == 20


async def test_failed_attempts_give_their_connections_back(connector: Connector, upstream: Upstream) -> None:
    upstream.answer(fails(503), says(b"<html>"), fails(400), fails(429), fails(500), says())
    for kind in (InvalidUpstreamAnswer, PermanentUpstreamError):
        with pytest.raises(kind):
            await ask(connector.service)
    await ask(connector.service)
    assert upstream.calls == 6
    assert isinstance(connector.session.connector, DirectConnector)
    assert connector.session.connector.in_use == 0


# Logs


async def test_success_is_told_at_info(service: OpenRouterChatCompletion, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "proxy"):
        await ask(service)
    assert {record.levelname for record in caplog.records if record.name.startswith("proxy")} == {"INFO"}


async def test_retries_are_told_as_warnings(
    service: OpenRouterChatCompletion, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer(fails(503), fails(503), says())
    with caplog.at_level(logging.INFO, "proxy"):
        await ask(service)
    levels = [record.levelname for record in caplog.records if record.name.startswith("proxy")]
    assert levels == ["WARNING", "WARNING", "INFO"]


@pytest.mark.parametrize("status", [400, 503])
async def test_failures_are_told_as_errors(
    service: OpenRouterChatCompletion, upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    upstream.answer(fails(status))
    with caplog.at_level(logging.INFO, "proxy"), pytest.raises(UpstreamError):
        await ask(service)
    assert [record.levelname for record in caplog.records if record.levelno >= logging.ERROR] == ["ERROR"]


@pytest.mark.parametrize("answering", [says(), fails(400, message=f"key {API_KEY} is bad"), fails(503)])
async def test_neither_prompt_nor_key_nor_answer_is_logged(
    service: OpenRouterChatCompletion, upstream: Upstream, caplog: pytest.LogCaptureFixture, answering: Any
) -> None:
    upstream.answer(answering)
    with caplog.at_level(logging.DEBUG), suppress(UpstreamError):
        await ask(service)
    told = " ".join(str(record.__dict__) for record in caplog.records)
    for secret in ("Hello", API_KEY, "Hi there!"):
        assert secret not in told
