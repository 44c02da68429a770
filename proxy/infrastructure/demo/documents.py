"""OpenRouter's wire format: completions, chunks, errors and generations as JSON documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal

from proxy.infrastructure.demo.answers import Answer, Completion

PROVIDER = "Demo"
_WORDS = re.compile(r"\s*\S+|\s+")
_ERROR_TYPES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}


def to_json(value: object) -> bytes:
    """JSON with every Decimal as a plain number, all its digits kept, and lone surrogates as escapes."""
    # Surrogates occur in JSON's strings only, where Python's backslash form is JSON's escape.
    return _json_text(value).encode("utf-8", "backslashreplace")


def _json_text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_json_text(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def error_document(status: int, message: str, metadata: dict[str, object] | None = None) -> dict[str, object]:
    """The body of an error answer, also of one that comes with status 200."""
    return {"error": _error(status, message, metadata), "user_id": "demo"}


def completion_document(completion: Completion) -> dict[str, object]:
    """The body of an answer that is not streamed."""
    answer = completion.answer
    choices: list[dict[str, object]] = [
        {
            "index": index,
            "message": _message(answer, _call_id(completion, index)),
            "logprobs": None,
            "finish_reason": answer.finish_reason,
            "native_finish_reason": answer.finish_reason,
        }
        for index in range(completion.request.choices)
    ]
    return _envelope(completion, "chat.completion", choices) | {"usage": _usage(completion)}


def chunk_documents(completion: Completion) -> Iterator[dict[str, object]]:
    """The data of a stream's events: for each choice the role, the pieces and the end; then the usage of all."""
    for index in range(completion.request.choices):
        for delta in _deltas(completion.answer, _call_id(completion, index)):
            yield _chunk(completion, index, delta)
        yield _chunk(completion, index, {"content": ""}, completion.answer.finish_reason)
    yield _envelope(completion, "chat.completion.chunk", []) | {"usage": _usage(completion)}


def error_chunk_document(completion: Completion, status: int, message: str) -> dict[str, object]:
    """The data of the event that ends a stream which has failed."""
    return _chunk(completion, 0, {"content": ""}, "error") | {"error": _error(status, message)}


def _error(status: int, message: str, metadata: dict[str, object] | None = None) -> dict[str, object]:
    error_type = _ERROR_TYPES.get(status, "unmapped")
    return {"code": status, "message": message, "metadata": {"error_type": error_type} | (metadata or {})}


def _envelope(completion: Completion, kind: str, choices: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": completion.id,
        "provider": PROVIDER,
        "model": completion.request.model,
        "object": kind,
        "created": completion.created,
        "choices": choices,
        "system_fingerprint": None,
    }


def _message(answer: Answer, call_id: str) -> dict[str, object]:
    if answer.function is None:
        return {"role": "assistant", "content": answer.text, "refusal": None, "reasoning": None}
    function = {"name": answer.function, "arguments": answer.text}
    calls = [{"index": 0, "id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "refusal": None, "reasoning": None, "tool_calls": calls}


def _deltas(answer: Answer, call_id: str) -> Iterator[dict[str, object]]:
    pieces = _WORDS.findall(answer.text)
    if answer.function is None:
        yield {"role": "assistant", "content": ""}
        yield from ({"content": piece} for piece in pieces)
        return
    yield {"role": "assistant", "content": None}
    function = {"name": answer.function, "arguments": ""}
    yield {"tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]}
    for piece in pieces:
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _chunk(
    completion: Completion, index: int, delta: dict[str, object], finish_reason: str | None = None
) -> dict[str, object]:
    choice: dict[str, object] = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish_reason,
        "native_finish_reason": finish_reason,
    }
    return _envelope(completion, "chat.completion.chunk", [choice])


def _call_id(completion: Completion, index: int) -> str:
    return f"call_{completion.id.rpartition('-')[2]}{index}"


def _usage(completion: Completion) -> dict[str, object]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        "cost": completion.cost,
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": completion.prompt_cost,
            "upstream_inference_completions_cost": completion.completion_cost,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": 0},
    }
