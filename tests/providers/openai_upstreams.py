"""Upstreams that speak OpenAI's dialect, each with its own way of telling usage and errors.

Error bodies are as those servers send them: from their documentation, their sources, or reports of their users.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.harness import Answering, says, streams
from tests.providers.kinds import API_KEY, INPUT_TOKENS, OUTPUT_TOKENS, TOOL_CALL, Asked, Kind, Then

USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
DONE = b"data: [DONE]\n\n"
BEARER = ("Authorization", f"Bearer {API_KEY}")


def event(delta: dict[str, Any] | None, finish_reason: str | None = None, **members: Any) -> bytes:
    """One chunk; without a delta it has no choices."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "served-model",
        "choices": [] if delta is None else [choice],
        **members,
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Framing:
    """How a server puts usage, and whatever else is its own, into streams.

    `asks_first`: usage comes only if `stream_options.include_usage` is true; `beside_finish`: with the finish reason
    instead of on its own. `refuses_options`: `stream_options` is an error.
    """

    asks_first: bool = True
    beside_finish: bool = False
    null_usage: bool = False
    refuses_options: bool = False
    before: bytes = b""
    done: bytes = DONE

    def events(self, pieces: Sequence[bytes], finish_reason: str, *, usage: bool) -> list[bytes]:
        """A whole stream with these pieces."""
        with_finish = {"usage": USAGE} if usage and self.beside_finish else {}
        events = [self.before, *pieces, event({}, finish_reason, **with_finish)]
        if usage and not self.beside_finish:
            events.append(event(None, usage=USAGE))
        return [*filter(None, events), self.done]

    def tells_usage(self, request: dict[str, Any]) -> bool:
        return not self.asks_first or (request.get("stream_options") or {}).get("include_usage") is True

    def piece(self, delta: dict[str, Any], request: dict[str, Any]) -> bytes:
        null = self.null_usage and self.tells_usage(request)
        return event(delta, usage=None) if null else event(delta)


def streaming(
    framing: Framing, deltas: Sequence[dict[str, Any]], finish_reason: str = "stop", then: Then | None = None
) -> Answering:
    """A stream of these deltas, each sent on its own; with `then` it has no end."""

    async def answering(request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        if framing.refuses_options and "stream_options" in asked:
            return await says(MISTRAL_EXTRA, status=422)(request)
        pieces = [framing.piece(delta, asked) for delta in deltas]
        if then is not None:
            return await streams(*pieces, then=then, generation_header=None)(request)
        events = framing.events(pieces, finish_reason, usage=framing.tells_usage(asked))
        return await streams(*events, pause_seconds=0.002, generation_header=None)(request)

    return answering


def completion(message: dict[str, Any], finish_reason: str = "stop") -> Answering:
    return says(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "served-model",
            "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}],
            "usage": USAGE,
        }
    )


def asked(body: bytes) -> Asked:
    request = json.loads(body)
    messages = request["messages"]
    return Asked(
        model=request["model"],
        texts=tuple(m["content"] for m in messages if isinstance(m.get("content"), str) and m["role"] != "tool"),
        tools=tuple(tool["function"]["name"] for tool in request.get("tools", ())),
        tool_results=tuple((m["tool_call_id"], m["content"]) for m in messages if m["role"] == "tool"),
    )


def _tool_call() -> dict[str, Any]:
    call_id, name, arguments = TOOL_CALL
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool_deltas() -> list[dict[str, Any]]:
    call_id, name, arguments = TOOL_CALL
    first = {"index": 0, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    halves = (arguments[:5], arguments[5:])
    fragments = [{"index": 0, "function": {"arguments": half}} for half in halves]
    return [{"role": "assistant", "content": None, "tool_calls": [first]}] + [
        {"tool_calls": [fragment]} for fragment in fragments
    ]


def openai_kind(
    name: str,
    framing: Framing,
    error: Callable[[int, str], Any],
    *,
    too_long: Answering,
    refused: Answering | None = None,
    registered: str = "openai",
    key_header: tuple[str, str] = BEARER,
    base_path: str = "/v1",
) -> Kind:
    """A server that speaks OpenAI's dialect but for its framing and its errors."""
    return Kind(
        name=name,
        registered=registered,
        base_path=base_path,
        key_header=key_header,
        asked=asked,
        answers=lambda text: completion({"content": text}),
        streams=lambda texts: streaming(framing, [{"content": text} for text in texts]),
        calls_tool=lambda: completion({"content": None, "tool_calls": [_tool_call()]}, "tool_calls"),
        streams_tool_call=lambda: streaming(framing, _tool_deltas(), "tool_calls"),
        breaks_off=lambda texts, then: streaming(framing, [{"content": text} for text in texts], then=then),
        fails=lambda status, message: says(error(status, message), status=status),
        too_long=too_long,
        refused=refused,
        takes_stream_options=not framing.refuses_options,
    )


def openai_error(_status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> Any:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


MISTRAL_EXTRA = {
    "object": "error",
    "message": {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "stream_options", "include_usage"],
                "msg": "Extra inputs are not permitted",
                "input": True,
            }
        ]
    },
    "type": "invalid_request_error",
    "param": None,
    "code": None,
}
CONTEXT_SENTENCE = (
    "This model's maximum context length is 8192 tokens. However, you requested 9591 tokens (9079 in the messages, "
    "512 in the completion). Please reduce the length of the messages or completion."
)
AZURE_REFUSAL = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
        },
    }
}
OPENROUTER_MODERATION = {
    "error": {
        "code": 403,
        "message": "Input requires moderation and did not pass.",
        "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "OpenAI", "model_slug": "x"},
    }
}

_OPENAI_TOO_LONG = says(openai_error(400, CONTEXT_SENTENCE, "context_length_exceeded"), status=400)
_OPENAI_REFUSED = says(
    openai_error(
        400,
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a "
        "different prompt.",
        "invalid_prompt",
    ),
    status=400,
)
_AZURE_FILTERS = event(None, prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}])
_VLLM_ERROR = {"object": "error", "message": CONTEXT_SENTENCE, "type": "BadRequestError", "param": None, "code": 400}

OPENAI_KINDS = [
    openai_kind(
        "openrouter",
        Framing(asks_first=False, before=b": OPENROUTER PROCESSING\n\n"),
        lambda status, message: {"error": {"code": status, "message": message}},
        too_long=says(
            {
                "error": {
                    "code": 400,
                    "message": "This endpoint's maximum context length is 8192 tokens. However, you requested about "
                    "9591 tokens.",
                    "metadata": {"error_type": "context_length_exceeded"},
                }
            },
            status=400,
        ),
        refused=says(OPENROUTER_MODERATION, status=403),
        registered="openrouter",
        base_path="/api/v1",
    ),
    openai_kind("openai", Framing(null_usage=True), openai_error, too_long=_OPENAI_TOO_LONG, refused=_OPENAI_REFUSED),
    openai_kind(
        "tgi",
        Framing(),
        lambda _status, message: {"detail": message},
        too_long=says({"error": "`inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9000"}, status=422),
    ),
    openai_kind(
        "azure",
        Framing(null_usage=True, before=_AZURE_FILTERS),
        lambda status, message: {"error": {"code": str(status), "message": message}},
        too_long=_OPENAI_TOO_LONG,
        refused=says(AZURE_REFUSAL, status=400),
        registered="azure",
        key_header=("api-key", API_KEY),
        base_path="/openai/v1",
    ),
    openai_kind(
        "deepseek",
        Framing(before=b": keep-alive\n\n"),
        openai_error,
        too_long=says(openai_error(400, CONTEXT_SENTENCE, "invalid_request_error"), status=400),
        refused=says(openai_error(400, "Content Exists Risk", "invalid_request_error"), status=400),
        base_path="",
    ),
    openai_kind(
        "fireworks",
        Framing(asks_first=False, beside_finish=True),
        lambda _status, message: {"error": {"object": "error", "type": "invalid_request_error", "message": message}},
        too_long=says(
            openai_error(400, "The prompt is too long: 140000, model maximum context length: 131071"), status=400
        ),
        base_path="/inference/v1",
    ),
    openai_kind(
        "gemini",
        Framing(beside_finish=True),
        lambda status, message: [{"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}],
        too_long=says(
            [
                {
                    "error": {
                        "code": 400,
                        "message": "The input token count (1200000) exceeds the maximum number of tokens allowed "
                        "(1048576).",
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
            status=400,
        ),
        base_path="/v1beta/openai",
    ),
    openai_kind(
        "groq",
        Framing(),
        openai_error,
        too_long=says(
            openai_error(400, "Please reduce the length of the messages or completion.", "context_length_exceeded"),
            status=400,
        ),
        base_path="/openai/v1",
    ),
    openai_kind(
        "llamacpp",
        Framing(),
        lambda status, message: {"error": {"code": status, "message": message, "type": "server_error"}},
        too_long=says(
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size. try increasing the context size",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 1407,
                    "n_ctx": 256,
                }
            },
            status=400,
        ),
    ),
    openai_kind(
        "mistral",
        Framing(asks_first=False, beside_finish=True, refuses_options=True),
        lambda _status, message: {
            "object": "error",
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": "1000",
        },
        too_long=says(
            {
                "object": "error",
                "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum "
                "context length",
                "type": "invalid_request_error",
                "param": None,
                "code": "3051",
            },
            status=400,
        ),
        registered="mistral-openai",
    ),
    openai_kind(
        "ollama",
        Framing(),
        lambda _status, message: {"error": message},
        too_long=says({"error": "the input length exceeds the context length"}, status=400),
    ),
    openai_kind(
        "together",
        Framing(asks_first=False, beside_finish=True),
        lambda _status, message: {"id": "o1", "error": {"message": message, "type": "x", "param": None, "code": None}},
        too_long=says(
            openai_error(422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193."), status=422
        ),
    ),
    openai_kind(
        "vllm",
        Framing(),
        lambda status, message: {**_VLLM_ERROR, "message": message, "code": status},
        too_long=says(_VLLM_ERROR, status=400),
    ),
]


async def never(_request: web.Request) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.sleep(3600)
    raise AssertionError
