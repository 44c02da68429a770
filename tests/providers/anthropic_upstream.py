"""An upstream that speaks Anthropic's Messages API, as its documentation shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from tests.harness import Answering, says, streams
from tests.providers.kinds import API_KEY, INPUT_TOKENS, OUTPUT_TOKENS, TOOL_CALL, Asked, Kind, Then

USAGE = {
    "input_tokens": INPUT_TOKENS,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": OUTPUT_TOKENS,
    "service_tier": "standard",
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def sse(kind: str, **members: Any) -> bytes:
    """One event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def message(
    *blocks: dict[str, Any],
    stop_reason: str = "end_turn",
    usage: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Answering:
    """A whole answer."""
    return says(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "served-model",
            "content": list(blocks),
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage or USAGE,
        },
        headers=headers,
    )


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def start(usage: dict[str, Any] | None = None) -> bytes:
    """A stream's first event; its output tokens are those so far."""
    begun: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "served-model",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**(usage or USAGE), "output_tokens": 1},
    }
    return sse("message_start", message=begun)


def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    """The events of one content block."""
    return [
        sse("content_block_start", index=index, content_block=begun),
        *(sse("content_block_delta", index=index, delta=delta) for delta in deltas),
        sse("content_block_stop", index=index),
    ]


def text_block(index: int, pieces: Sequence[str]) -> list[bytes]:
    return block(index, text(""), *({"type": "text_delta", "text": piece} for piece in pieces))


def thinking_block(index: int, pieces: Sequence[str], signature: str) -> list[bytes]:
    deltas = ({"type": "thinking_delta", "thinking": piece} for piece in pieces)
    begun = {"type": "thinking", "thinking": "", "signature": ""}
    return block(index, begun, *deltas, {"type": "signature_delta", "signature": signature})


def tool_block(index: int, call_id: str, name: str, fragments: Sequence[str]) -> list[bytes]:
    begun = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    return block(index, begun, *({"type": "input_json_delta", "partial_json": part} for part in fragments))


def end(stop_reason: str = "end_turn", output_tokens: int = OUTPUT_TOKENS) -> list[bytes]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return [sse("message_delta", delta=delta, usage={"output_tokens": output_tokens}), sse("message_stop")]


def streaming(*events: bytes, then: Then | None = None) -> Answering:
    """A stream of these events, each sent on its own."""
    return streams(*events, then=then, pause_seconds=0.002, generation_header=None)


def error(status: int, words: str) -> dict[str, Any]:
    details = {"type": ERROR_TYPES.get(status, "api_error"), "message": words}
    return {"type": "error", "error": details, "request_id": "req_1"}


def asked(body: bytes) -> Asked:
    request = json.loads(body)
    blocks = [part for message in request["messages"] for part in message["content"]]
    return Asked(
        model=request["model"],
        texts=tuple(part["text"] for part in (*(request.get("system") or ()), *blocks) if part["type"] == "text"),
        tools=tuple(tool["name"] for tool in request.get("tools", ())),
        tool_results=tuple((part["tool_use_id"], part["content"]) for part in blocks if part["type"] == "tool_result"),
    )


def _breaks_off(pieces: Sequence[str], then: Then) -> Answering:
    return streaming(start(), PING, *text_block(0, pieces)[:-1], then=then)


def _streams_tool_call() -> Answering:
    call_id, name, arguments = TOOL_CALL
    fragments = ("", arguments[:5], arguments[5:])
    return streaming(start(), *tool_block(0, call_id, name, fragments), *end("tool_use"))


async def _refuses(request: web.Request) -> web.StreamResponse:
    return await says(error(400, "Output blocked by content filtering policy"), status=400)(request)


ANTHROPIC = Kind(
    name="anthropic",
    base_path="/v1",
    key_header=("x-api-key", API_KEY),
    asked=asked,
    answers=lambda words: message(text(words)),
    streams=lambda pieces: streaming(start(), PING, *text_block(0, pieces), *end()),
    calls_tool=lambda: message(
        {"type": "tool_use", "id": TOOL_CALL[0], "name": TOOL_CALL[1], "input": json.loads(TOOL_CALL[2])},
        stop_reason="tool_use",
    ),
    streams_tool_call=_streams_tool_call,
    breaks_off=_breaks_off,
    fails=lambda status, words: says(error(status, words), status=status),
    too_long=says(error(400, "prompt is too long: 208310 tokens > 200000 maximum"), status=400),
    refused=_refuses,
)
