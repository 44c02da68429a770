"""A chat completion request as the demo upstream reads it: strict where OpenRouter is, otherwise forgiving."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.infrastructure.demo.catalogue import DEFAULT_MODEL

_MAX_CHOICES = 128
_NOT_CALLABLE = ("tool", "function")  # after a tool's result comes the answer, not another call
_ANY_JSON_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


class BadRequest(Exception):
    """The request is one that OpenRouter answers with 400."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the answer is to call."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """The members that change the answer.

    `function` is the one to call, None for an answer in words. `json_schema` is what those words must satisfy.
    """

    model: str
    messages: tuple[Mapping[str, object], ...]
    stream: bool = False
    choices: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    function: Function | None = None
    json_schema: object | None = None


def read_request(body: bytes) -> DemoRequest:
    """The request in a POST's body.

    Raises:
        BadRequest: it is no JSON object, or has no messages, or names a tool that it does not bring.
    """
    members = _json_object(body)
    messages = _messages(members)
    return DemoRequest(
        model=_model(members),
        messages=messages,
        stream=members.get("stream") is True,
        choices=min(_positive(members.get("n")) or 1, _MAX_CHOICES),
        max_tokens=_positive(members.get("max_completion_tokens")) or _positive(members.get("max_tokens")),
        stop=_stop(members.get("stop")),
        function=None if messages[-1].get("role") in _NOT_CALLABLE else _function_to_call(members),
        json_schema=_json_schema(members.get("response_format")),
    )


def text_of(message: Mapping[str, object]) -> str:
    """The text of a message, whether its content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in _objects(content)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        members = json.loads(body, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as problem:
        raise BadRequest(f"Invalid JSON in the request body: {problem}") from problem
    if not isinstance(members, dict):
        raise BadRequest("The request body must be a JSON object.")
    return members


def _finite(literal: str) -> float:
    """Keeps out what could not be written back as JSON."""
    number = float(literal)
    if not math.isfinite(number):
        raise ValueError(f"{literal[:20]} is out of range")
    return number


def _messages(members: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    messages = members.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest('Input required: specify "messages", a list that is not empty.')
    if not all(isinstance(message, dict) for message in messages):
        raise BadRequest('Each of "messages" must be an object.')
    return tuple(messages)


def _model(members: Mapping[str, object]) -> str:
    model = members.get("model")
    if model is None:
        return DEFAULT_MODEL
    if not isinstance(model, str) or not model.strip():
        raise BadRequest('"model" must be the name of a model.')
    return model


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _stop(value: object) -> tuple[str, ...]:
    candidates = value if isinstance(value, list) else [value]
    return tuple(stop for stop in candidates if isinstance(stop, str) and stop)


def _json_schema(response_format: object) -> object | None:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return _ANY_JSON_OBJECT
    if response_format.get("type") != "json_schema":
        return None
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) and schema else _ANY_JSON_OBJECT


def _function_to_call(members: Mapping[str, object]) -> Function | None:
    choice = members.get("tool_choice")
    functions = _functions(members.get("tools"))
    if choice == "none" or not functions:
        return None
    wanted = _wanted_names(choice)
    if not wanted:
        return functions[0]
    for function in functions:
        if function.name in wanted:
            return function
    raise BadRequest(f'"tool_choice" names {", ".join(wanted)[:100]}, which is not among the tools.')


def _functions(tools: object) -> list[Function]:
    described = [tool.get("function") for tool in _objects(tools)]
    return [
        Function(name, function.get("parameters"))
        for function in _objects(described)
        if isinstance(name := function.get("name"), str)
    ]


def _wanted_names(choice: object) -> list[str]:
    """Names in `{"function": {"name": …}}`, or in the list of `{"allowed_tools": {"tools": [...]}}`."""
    if not isinstance(choice, dict):
        return []
    allowed = choice.get("allowed_tools")
    tools = allowed.get("tools") if isinstance(allowed, dict) else [choice]
    return [function.name for function in _functions(tools)]


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
