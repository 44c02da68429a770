"""The examples in the OpenAPI document: requests that work as they stand, answers, and an error of each status."""

from __future__ import annotations

from typing import Any, Final

from proxy.domain.errors import (
    BodyTooLarge,
    CircuitOpen,
    GatewayError,
    HeadTooLarge,
    IdempotencyKeyReused,
    IdempotentAnswerNotKept,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotAllowed,
    ModelNotFound,
    NotAuthenticated,
    PermanentUpstreamError,
    RequestTooSlow,
    TransientUpstreamError,
    UnsupportedExpectation,
    UnsupportedMediaType,
)

# For each status why it is sent, and an error that is: the example in the document is what the gateway would answer.
ERRORS: Final[tuple[tuple[str, GatewayError], ...]] = (
    (
        "The request cannot be served as it was sent; `param` names the field.",
        InvalidRequest("Missing required field 'messages'.", param="messages", code="missing_required_parameter"),
    ),
    ("No API key, or not the gateway's.", NotAuthenticated("Incorrect API key given.")),
    (
        "The gateway's account at the upstream is out of credits.",
        PermanentUpstreamError("Insufficient credits.", status=402, details={"code": 402}),
    ),
    (
        "The key may not do this or not use the model; or the upstream refused the content.",
        ModelNotAllowed("gpt-5"),
    ),
    ("No such model.", ModelNotFound("no/such-model")),
    ("The path takes other methods: see `Allow`.", MethodNotAllowed("PUT", "/v1/chat/completions", ["POST"])),
    (
        "The request did not arrive in time.",
        RequestTooSlow("The request's head did not arrive within 30 s."),
    ),
    (
        "The answer to this Idempotency-Key could not be kept, or another gateway is at it (then with `Retry-After`).",
        IdempotentAnswerNotKept(),
    ),
    ("The Idempotency-Key was used with another body, or the upstream's own 422.", IdempotencyKeyReused()),
    ("The body is larger than the gateway takes.", BodyTooLarge(33_554_432)),
    (
        "The body is not JSON, or it is compressed.",
        UnsupportedMediaType("Content-Type 'text/plain' is not supported; send 'Content-Type: application/json'."),
    ),
    (
        "An Expect header asks for something unknown.",
        UnsupportedExpectation("Only 'Expect: 100-continue' is supported."),
    ),
    ("The request line and headers are larger than the gateway takes.", HeadTooLarge(8190)),
    (
        "The upstream's rate limit, after the gateway's own retries.",
        TransientUpstreamError("Rate limit exceeded.", status=429, details={"code": 429}),
    ),
    ("A defect of the gateway, or the upstream's own 500.", GatewayError("The gateway failed to handle this request.")),
    (
        "The upstream failed, or none of the fallbacks answered.",
        TransientUpstreamError("Connection to OpenRouter failed (ClientConnectorError).", kind="connection"),
    ),
    (
        "The gateway or the upstream takes no requests now; come back after `Retry-After`.",
        CircuitOpen("OpenRouter", retry_after_seconds=12),
    ),
    (
        "The upstream did not answer in time.",
        TransientUpstreamError("OpenRouter did not begin to answer within 30 s.", kind="timeout"),
    ),
)

STREAM: Final = """\
data: {"id":"gen-1","object":"chat.completion.chunk","created":1767225600,"model":"z-ai/glm-4.6",\
"choices":[{"index":0,"delta":{"role":"assistant","content":"Hello!"},"finish_reason":null}]}

data: {"id":"gen-1","object":"chat.completion.chunk","created":1767225600,"model":"z-ai/glm-4.6",\
"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"""

_WEATHER: Final = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_HELLO: Final = {"model": "auto", "messages": [{"role": "user", "content": "Say hello in one sentence."}]}
_ASKING: Final = {"model": "auto", "messages": [{"role": "user", "content": "How is the weather in Oslo?"}]}

REQUESTS: Final[dict[str, Any]] = {
    "plain": {"summary": "A plain answer", "value": _HELLO},
    "stream": {
        "summary": "A stream, with its usage",
        "value": {**_HELLO, "stream": True, "stream_options": {"include_usage": True}},
    },
    "tools": {"summary": "A tool call", "value": {**_ASKING, "tools": [{"type": "function", "function": _WEATHER}]}},
}

ANSWER: Final[dict[str, Any]] = {
    "id": "gen-1",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "z-ai/glm-4.6",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "cost": 0.0000123},
}
