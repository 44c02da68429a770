"""An upstream that speaks Google's Gemini API, as its documentation shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.harness import Answering, says, streams
from tests.providers.kinds import API_KEY, INPUT_TOKENS, OUTPUT_TOKENS, TOOL_CALL, Asked, Kind, Then

USAGE = {
    "promptTokenCount": INPUT_TOKENS,
    "candidatesTokenCount": OUTPUT_TOKENS,
    "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


def response(*parts: dict[str, Any], finish_reason: str | None = "STOP", **members: Any) -> dict[str, Any]:
    """An answer, or a chunk of one."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish_reason:
        candidate["finishReason"] = finish_reason
    common = {"modelVersion": "served-model", "responseId": "resp_1", "usageMetadata": USAGE}
    return {"candidates": [candidate], **common, **members}


def text(words: str) -> dict[str, Any]:
    return {"text": words}


def function_call(call_id: str | None, name: str, args: dict[str, Any], **members: Any) -> dict[str, Any]:
    call = {"name": name, "args": args} | ({"id": call_id} if call_id else {})
    return {"functionCall": call, **members}


def data(chunk: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(chunk)}\r\n\r\n".encode()


def streaming(*chunks: dict[str, Any], then: Then | None = None) -> Answering:
    """A stream of these chunks, each sent on its own."""
    return streams(*map(data, chunks), then=then, pause_seconds=0.002, generation_header=None)


def error(status: int, words: str, *details: dict[str, Any]) -> dict[str, Any]:
    body = {"code": status, "message": words, "status": STATUSES.get(status, "UNKNOWN"), "details": list(details)}
    return {"error": body}


def asked(body: bytes) -> Asked:
    """All but the model, which is in the path."""
    request = json.loads(body)
    contents = [request["systemInstruction"]] if "systemInstruction" in request else []
    parts = [part for content in (*contents, *request["contents"]) for part in content["parts"]]
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    declared = [tool for tools in request.get("tools", ()) for tool in tools["functionDeclarations"]]
    return Asked(
        model="",
        texts=tuple(part["text"] for part in parts if "text" in part),
        tools=tuple(tool["name"] for tool in declared),
        tool_results=tuple((result["id"], result["response"]["result"]) for result in results),
    )


def model_of_path(path: str) -> str:
    """Of `/v1beta/models/{model}:generateContent`."""
    return path.removeprefix("/v1beta/models/").partition(":")[0]


def _pieces(words: Sequence[str]) -> list[dict[str, Any]]:
    return [response(text(word), finish_reason=None) for word in words]


GOOGLE = Kind(
    name="google",
    base_path="/",
    key_header=("x-goog-api-key", API_KEY),
    asked=asked,
    answers=lambda words: says(response(text(words))),
    streams=lambda words: streaming(*_pieces(words), response(text(""))),
    calls_tool=lambda: says(response(function_call(TOOL_CALL[0], TOOL_CALL[1], json.loads(TOOL_CALL[2])))),
    streams_tool_call=lambda: streaming(
        response(function_call(TOOL_CALL[0], TOOL_CALL[1], json.loads(TOOL_CALL[2])), finish_reason=None),
        response(text("")),
    ),
    breaks_off=lambda words, then: streaming(*_pieces(words), then=then),
    fails=lambda status, words: says(error(status, words), status=status),
    too_long=says(
        error(400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        status=400,
    ),
    refused=says(
        {
            "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
            "usageMetadata": {"promptTokenCount": INPUT_TOKENS, "totalTokenCount": INPUT_TOKENS},
            "modelVersion": "served-model",
        }
    ),
    model_of_path=model_of_path,
)
