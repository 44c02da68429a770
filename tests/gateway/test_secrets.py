"""No key, and no prompt, is ever in an answer to somebody else, a log record, or /health."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.harness import HELLO, Answering, TestGateway, Upstream, chunk, ending, fails, says, streams

ONCE = {"retry_max_retries": 0}


def everything_logged(caplog: pytest.LogCaptureFixture) -> str:
    """Messages, facts and tracebacks."""
    return caplog.text + "\n".join(str(record.__dict__) for record in caplog.records)


PROVIDER_KEY = "sk-or-provider-secret"
CLIENT_KEY = "the-clients-own-key-0815"
ECHOES = {
    "in the message": {"message": f"Invalid key {PROVIDER_KEY}, given as Bearer {PROVIDER_KEY}."},
    "in the metadata": {"message": "no", "metadata": {"raw": f'{{"key":"{PROVIDER_KEY}"}}', "list": [PROVIDER_KEY]}},
    "as a name": {"message": "no", "metadata": {PROVIDER_KEY: 1}, PROVIDER_KEY: 2},
    "as code and type": {"message": "no", "code": PROVIDER_KEY, "type": PROVIDER_KEY, "param": PROVIDER_KEY},
    "at the edge of a long message": {"message": "x" * 3990 + PROVIDER_KEY},
}


@pytest.mark.parametrize("error", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("status", [200, 400, 401, 503])
@pytest.mark.parametrize("key", [PROVIDER_KEY, "a key of no known form"])
async def test_no_key_is_ever_told(
    start_gateway: StartGateway,
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    error: dict[str, Any],
    status: int,
    key: str,
) -> None:
    """Neither in answers nor in logs nor by /health, though the upstream says it aloud."""
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(**ONCE, openrouter_api_key=key)
    said = json.dumps({"error": error}).replace(PROVIDER_KEY, key)
    upstream.answer(says(said.encode(), status=status))
    got, headers, body = await gateway.raw_chat(authorization=f"Bearer {CLIENT_KEY}")
    assert got >= 400
    assert upstream.headers[0]["Authorization"] == f"Bearer {key}"
    async with gateway.http.get(gateway.url / "health") as response:
        health = await response.text()
    for place in (str(headers), body.decode(), health, everything_logged(caplog)):
        assert key not in place
        assert CLIENT_KEY not in place
        assert "key of no" not in place
        assert "provider-secr" not in place


async def test_no_key_is_told_when_a_stream_begins_with_it(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(**ONCE)
    event = {"error": {"code": 400, "message": f"Bad key {PROVIDER_KEY}"}, "choices": []}
    upstream.answer(says(b"data: " + json.dumps(event).encode() + b"\n\n"))
    status, _, body = await gateway.raw_chat({**HELLO, "stream": True})
    assert status == 400
    assert PROVIDER_KEY.encode() not in body
    assert PROVIDER_KEY not in everything_logged(caplog)


PROMPT = "my deepest secret"
SPEAKING = {
    "success": says(),
    "no completion": says(PROMPT.encode()),
    "flagged": fails(403, message="flagged", metadata={"reasons": ["x"], "flagged_input": PROMPT}),
    "in the message": fails(400, message=f"Cannot complete '{PROMPT}'"),
    "in the message, again and again": fails(503, message=f"Cannot complete '{PROMPT}'"),
    "in a page": says(f"<html>{PROMPT}</html>".encode(), status=500),
    "in an error of a 200": says({"error": {"code": 502, "message": f"Failed on '{PROMPT}'"}}),
    "with our key": fails(401, message=f"No key for '{PROMPT}'"),
}


@pytest.mark.parametrize("key", [PROVIDER_KEY, "a key of no known form"])
@pytest.mark.parametrize("in_one_read", [False, True])
@pytest.mark.parametrize("after", [[], [b"data: [DONE]\n\n"], [chunk("x" * 40_000), *ending()]])
async def test_no_key_is_told_in_the_middle_of_a_stream(
    start_gateway: StartGateway,
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
    key: str,
    in_one_read: bool,
    after: list[bytes],
) -> None:
    """And nothing else of the stream changes, though a model may write what looks like a key."""
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(openrouter_api_key=key)
    error = json.dumps({"error": {"code": 502, "message": f"refused Bearer {key}", "metadata": {"raw": [key]}}})
    writes = [chunk('my "error": sk-of-a-model-0815'), b"data: " + error.encode() + b"\r\n\r\n", *after]
    upstream.answer(streams(*([b"".join(writes)] if in_one_read else writes)))
    _, _, raw = await gateway.raw_chat({**HELLO, "stream": True})
    assert key.encode() not in raw
    assert key not in everything_logged(caplog)
    assert raw.startswith(writes[0])
    assert raw.endswith(b"".join(after))
    assert b'"message": "refused ' in raw


@pytest.mark.parametrize("answer", SPEAKING.values(), ids=SPEAKING)
@pytest.mark.parametrize("model", ["z-ai/glm-4.6", "auto"])
async def test_no_prompt_is_ever_logged(
    gateway: TestGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, answer: Answering, model: str
) -> None:
    """Though the upstream repeats it."""
    caplog.set_level(logging.DEBUG)
    upstream.answer(answer)
    await gateway.raw_chat({**HELLO, "model": model, "messages": [{"role": "user", "content": PROMPT}], "user": PROMPT})
    await gateway.row()
    assert PROMPT not in everything_logged(caplog)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"my deepest secret"}',
        b'{"model":"m","messages":[{"role":"my deepest secret","content":"a"}]}',
        b'{"model":"m","messages":["my deepest secret"]}',
        b'{"messages":[],"my deepest secret":"my deepest secret"}',
        b'{"model":"m","temperature":"my deepest secret","messages":[]}',
        b"my deepest secret",
    ],
)
async def test_no_prompt_of_a_refused_request_is_logged(
    gateway: TestGateway, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    assert (await gateway.raw_chat(body))[0] == 400
    await gateway.row()
    assert PROMPT not in everything_logged(caplog)
