"""OpenAI's parameters that several dialects know, each read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from proxy.infrastructure.chat_completion.native.members import Members

IGNORED = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "prompt_cache_key",
        "prompt_cache_retention",
        "session_id",
        "metadata",
        "models",
    }
)
IDLE: dict[str, Any] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "store": False,
    "modalities": ["text"],
    "verbosity": "medium",
}
_EMPTY_SCHEMA = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function on offer. `parameters` is its JSON schema."""

    name: str
    description: str | None
    parameters: dict[str, Any]
    strict: bool
    cache_control: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools may, must or must not be called; `name` is the one that must be."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The schema that an answer must follow."""

    name: str
    schema: dict[str, Any]


def read_tools(request: Members) -> list[Tool]:
    return [_tool(tool) for tool in request.each("tools")]


def _tool(tool: Members) -> Tool:
    if tool.take("type") != "function":
        tool.refuse("type", f"must be function: other tools cannot be carried to provider '{tool.provider}'.")
    function = tool.inside("function")
    if function is None:
        tool.refuse("function", "is required.")
    read = Tool(
        name=function.required_text("name"),
        description=function.text("description"),
        parameters=function.object("parameters") or _EMPTY_SCHEMA,
        strict=function.flag("strict") or False,
        cache_control=tool.object("cache_control"),
    )
    function.finish()
    tool.finish()
    return read


def read_tool_choice(request: Members, tools: list[Tool]) -> ToolChoice | None:
    """None if there are no tools to choose from."""
    choice, parallel = request.take("tool_choice"), request.flag("parallel_tool_calls")
    if not tools:
        if choice not in (None, "auto", "none"):
            request.refuse("tool_choice", "needs tools.")
        return None
    if isinstance(choice, dict):
        return ToolChoice("required", _chosen(request, choice, tools), parallel is not False)
    if choice not in (None, "auto", "none", "required"):
        request.refuse("tool_choice", "must be auto, none, required, or a function's name in an object.")
    return ToolChoice(choice or "auto", None, parallel is not False)


def _chosen(request: Members, choice: dict[str, Any], tools: list[Tool]) -> str:
    members = Members(choice, request.at("tool_choice"), request.provider)
    if members.take("type") != "function" or (function := members.inside("function")) is None:
        members.refuse("type", f"must be function: others cannot be carried to provider '{request.provider}'.")
    name = function.required_text("name")
    function.finish()
    members.finish()
    if name not in {tool.name for tool in tools}:
        function.refuse("name", "is not among the tools.")
    return name


def read_max_tokens(request: Members) -> int | None:
    """By its old or its new name."""
    old, new = request.whole("max_tokens", 1), request.whole("max_completion_tokens", 1)
    if old is not None and new is not None and old != new:
        request.refuse("max_tokens", "and 'max_completion_tokens' are two names of one thing: set one of them.")
    return old if new is None else new


def read_stop(request: Members, most: int | None = None) -> list[str] | None:
    """The texts that end an answer; some providers take no more than `most`."""
    stop = request.take("stop")
    if stop is None or stop == []:
        return None
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        request.refuse("stop", "must be a string or an array of strings, none of them empty.")
    if most is not None and len(stops) > most:
        request.refuse("stop", f"can have no more than {most} strings for provider '{request.provider}'.")
    return stops


def read_response_format(request: Members) -> JsonSchema | Literal["text", "json_object"]:
    """The schema of structured output, or the name of another format."""
    wanted = request.inside("response_format")
    if wanted is None:
        return "text"
    kind = wanted.take("type")
    if kind in ("text", "json_object"):
        wanted.finish()
        return "text" if kind == "text" else "json_object"
    described = wanted.inside("json_schema")
    if kind != "json_schema" or described is None:
        wanted.refuse("type", "must be text, json_object, or json_schema with a schema.")
    wanted.finish()
    name, description, schema = described.text("name"), described.text("description"), described.object("schema")
    described.flag("strict")  # a schema is always kept to
    described.finish()
    if schema is None:
        described.refuse("schema", "is required.")
    if description:
        schema = {"description": description} | schema
    return JsonSchema(name or "answer", schema)
