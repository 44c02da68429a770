"""JSON Schemas of what goes over the wire: requests, answers, errors, models, health.

Only what the gateway itself checks or promises is required here. Everything else may be absent, and more may come:
requests and answers pass through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from proxy.api.openai.fields import FIELDS, ROLES
from proxy.api.openai.request_schemas import request_schemas
from proxy.api.openai.usage_schemas import usage_schemas

Schema = dict[str, Any]

# What the table of fields cannot say.
FIELD_NOTES: Final[Mapping[str, Schema]] = {
    "model": {
        "pattern": r"\S",
        "description": "A model of `GET /v1/models`, or `auto`: the gateway chooses by the prompt's length, and falls "
        "back to other models. A model that is named is never replaced by another one.",
    },
    "messages": {"minItems": 1, "items": {"$ref": "#/components/schemas/Message"}},
    "stream": {"description": "Answer with server-sent events."},
    "stream_options": {"description": "`{include_usage: true}` asks for a last chunk with the usage and no choices."},
    "temperature": {"description": "The upstream checks the range, usually 0 to 2."},
    "stop": {"description": "One sequence that ends the answer, or several."},
    "max_tokens": {"description": "Deprecated by OpenAI in favour of `max_completion_tokens`. Sent on as it came."},
    "max_completion_tokens": {"description": "The longest answer, in tokens, reasoning included."},
    "response_format": {"description": "`{type: json_object}`, or `{type: json_schema, json_schema: {name, schema}}`."},
    "tools": {"description": "Functions that the model may ask the client to call; the gateway calls none."},
    "tool_choice": {"description": "`none`, `auto`, `required`, or the one tool to call."},
    "metadata": {"description": "For the upstream; not kept in the gateway's ledger."},
    "models": {"description": "OpenRouter: models to try when the first one fails."},
    "provider": {"description": "OpenRouter: which providers may answer, and in which order."},
    "usage": {"description": "OpenRouter: has no effect any more, usage is always reported."},
    "reasoning": {"description": "OpenRouter: `{effort}` or `{max_tokens}`, and whether to show it."},
}

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer"}


def object_schemas() -> dict[str, Schema]:
    """The `components/schemas` of the OpenAPI document."""
    return {
        "ChatCompletionRequest": _chat_completion_request(),
        "Message": _message(),
        **_answer_schemas(),
        "Error": _error(),
        "Model": _model(),
        "ModelList": _open(
            {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            },
            "object",
            "data",
        ),
        **usage_schemas(),
        **request_schemas(),
        **_health_schemas(),
    }


def _open(properties: dict[str, Schema], *required: str, description: str = "") -> Schema:
    """An object that may have more members than those."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": True}
    if required:
        schema["required"] = list(required)
    if description:
        schema["description"] = description
    return schema


def _chat_completion_request() -> Schema:
    return _open(
        {name: {"type": _json_types(accepted), **FIELD_NOTES.get(name, {})} for name, accepted in FIELDS.items()},
        "model",
        "messages",
        description="OpenAI's request, with OpenRouter's extensions. The types below are checked; unknown fields pass "
        "unchanged.",
    )


def _json_types(accepted: tuple[str, ...]) -> str | list[str]:
    """JSON Schema's names of the accepted forms, which the table gives in English: `an integer`."""
    names = [form.split()[-1] for form in accepted]
    return names[0] if len(names) == 1 else names


def _message() -> Schema:
    return _open(
        {
            "role": {"type": "string", "enum": list(ROLES)},
            "content": {
                "type": ["string", "array", "null"],
                "description": "Text, or content parts: text, image_url, input_audio, file, …",
            },
        },
        "role",
        description="Other members (`name`, `tool_calls`, `tool_call_id`, `reasoning_details`, …) pass unchanged.",
    )


def _answer_schemas() -> dict[str, Schema]:
    finish_reason = {
        **_TEXT_OR_NULL,
        "description": "stop, length, tool_calls, content_filter, function_call, or OpenRouter's error",
    }
    common = {"id": _TEXT, "created": _COUNT, "model": _TEXT}
    usage = {"$ref": "#/components/schemas/Usage"}
    return {
        "ChatCompletion": _open(
            {
                **common,
                "object": {"const": "chat.completion"},
                "choices": _choices("message", "ChoiceMessage", finish_reason),
                "usage": usage,
            },
            "choices",
            description="The upstream's answer, byte for byte.",
        ),
        "ChoiceMessage": _open(
            {
                "role": _TEXT,
                "content": _TEXT_OR_NULL,
                "refusal": _TEXT_OR_NULL,
                "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
            }
        ),
        "ChatCompletionChunk": _open(
            {
                **common,
                "object": {"const": "chat.completion.chunk"},
                "choices": _choices("delta", "ChoiceMessage", finish_reason),
                "usage": {"oneOf": [usage, {"type": "null"}]},
            },
            "choices",
            description="The data of one event of a stream. The chunk that carries the usage may have no choices.",
        ),
        "Usage": _open(
            {
                "prompt_tokens": _COUNT,
                "completion_tokens": _COUNT,
                "total_tokens": _COUNT,
                "cost": {"type": ["number", "null"], "description": "What the upstream billed, where it says so."},
            }
        ),
    }


def _choices(content: str, schema: str, finish_reason: Schema) -> Schema:
    choice = _open(
        {"index": _COUNT, content: {"$ref": f"#/components/schemas/{schema}"}, "finish_reason": finish_reason}
    )
    return {"type": "array", "items": choice}


def _error() -> Schema:
    error = _open(
        {
            "message": _TEXT,
            "type": _TEXT,
            "param": {**_TEXT_OR_NULL, "description": "The path of the offending field, as `messages[0].role`."},
            "code": {
                "type": ["string", "integer", "null"],
                "description": "A stable word for programs; some upstreams repeat the status here.",
            },
            "metadata": {"description": "What else the upstream said."},
        },
        "message",
        "type",
        "param",
        "code",
    )
    return _open({"error": error}, "error", description="OpenAI's error object. Streams carry it as an event.")


def _model() -> Schema:
    return _open(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _COUNT,
            "owned_by": _TEXT,
            "context_length": {"type": ["integer", "null"], "description": "In tokens."},
            "pricing": {"type": ["object", "null"], "description": "USD per token, as strings."},
        },
        "id",
        "object",
        "created",
        "owned_by",
        description="OpenAI's members, and all that the upstream adds.",
    )


def _configuration_schema() -> Schema:
    maybe_text = {"type": ["string", "null"]}
    return _open(
        {
            "file": maybe_text,
            "version": {**maybe_text, "description": "Of the content; the same text has the same."},
            "loaded_at": maybe_text,
            "problems": {"type": "array", "items": _TEXT, "description": "Of a later one that was not loaded."},
            "failed_at": maybe_text,
            "changed": {"type": "boolean"},
            "workers": {
                "type": "array",
                "items": {"type": "object"},
                "description": "After a reload, of a gateway of several: each one's `pid`, whether it `took_it`, its "
                "`version` and `problems`.",
            },
        },
        "file",
        "version",
        "loaded_at",
        "problems",
        "failed_at",
    )


def _health_schemas() -> dict[str, Schema]:
    texts = {"type": "array", "items": _TEXT}
    able = {"can_serve": {"type": "boolean"}, "can_book": {"type": "boolean"}}
    return {
        "Configuration": _configuration_schema(),
        "Health": _open(
            {
                "status": {"enum": ["ok", "degraded", "unavailable"]},
                "version": _TEXT,
                "uptime_seconds": {"type": "number"},
                "problems": texts,
                "database": {"type": "object"},
                "ledger": {"type": "object"},
                "limits": {"type": "object"},
                "idempotency": {"type": "object"},
                "load": {"type": "object"},
                "providers": {"type": "object", "additionalProperties": {"type": "object"}},
                "deployments": {"type": "object", "additionalProperties": {"type": "object"}},
                "configuration": {"$ref": "#/components/schemas/Configuration"},
                "payloads": {"type": "object"},
                "traces": {"type": "object"},
                "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
                "workers": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "Of a gateway of several: each one's `pid`, `status`, `problems`, "
                    "`uptime_seconds`, `load`, `ledger` and `configuration` (its `version`).",
                },
            },
            "status",
            "version",
            "uptime_seconds",
            "problems",
            "database",
            "ledger",
            "load",
            "providers",
            "deployments",
            "configuration",
            "payloads",
            "traces",
            "metrics",
            description="Of a gateway of several workers: counts are the sum over all of them, states are the worst. "
            "Workers that end for others that take their places have no say in `status` and `problems`.",
        ),
        "Alive": _open({"status": {"const": "alive"}}, "status"),
        "Ready": _open({"status": {"const": "ready"}, **able, "degraded": texts}, "status", *able, "degraded"),
        "NotReady": _open({"status": {"const": "not ready"}, **able, "reasons": texts}, "status", *able, "reasons"),
    }
