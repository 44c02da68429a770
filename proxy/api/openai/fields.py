"""The members of a chat completion request, and of what type each may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from proxy.domain.errors import InvalidRequest

Role = Literal["developer", "system", "user", "assistant", "tool", "function"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

_STRING, _NUMBER, _INTEGER, _BOOLEAN, _OBJECT, _ARRAY = (
    "a string",
    "a number",
    "an integer",
    "a boolean",
    "an object",
    "an array",
)
_NULL = "null"

# OpenAI's fields, and OpenRouter's where their type is documented. A field that is not here passes unseen.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": (_STRING,),
    "messages": (_ARRAY,),
    "stream": (_BOOLEAN, _NULL),
    "stream_options": (_OBJECT, _NULL),
    "temperature": (_NUMBER, _NULL),
    "top_p": (_NUMBER, _NULL),
    "n": (_INTEGER, _NULL),
    "seed": (_INTEGER, _NULL),
    "stop": (_STRING, _ARRAY, _NULL),
    "max_tokens": (_INTEGER, _NULL),
    "max_completion_tokens": (_INTEGER, _NULL),
    "presence_penalty": (_NUMBER, _NULL),
    "frequency_penalty": (_NUMBER, _NULL),
    "logit_bias": (_OBJECT, _NULL),
    "logprobs": (_BOOLEAN, _NULL),
    "top_logprobs": (_INTEGER, _NULL),
    "response_format": (_OBJECT, _NULL),
    "modalities": (_ARRAY, _NULL),
    "audio": (_OBJECT, _NULL),
    "prediction": (_OBJECT, _NULL),
    "verbosity": (_STRING, _NULL),
    "tools": (_ARRAY, _NULL),
    "tool_choice": (_STRING, _OBJECT, _NULL),
    "parallel_tool_calls": (_BOOLEAN, _NULL),
    "functions": (_ARRAY, _NULL),
    "function_call": (_STRING, _OBJECT, _NULL),
    "reasoning_effort": (_STRING, _NULL),
    "service_tier": (_STRING, _NULL),
    "store": (_BOOLEAN, _NULL),
    "metadata": (_OBJECT, _NULL),
    "user": (_STRING, _NULL),
    "safety_identifier": (_STRING, _NULL),
    "prompt_cache_key": (_STRING, _NULL),
    "prompt_cache_retention": (_STRING, _NULL),
    "web_search_options": (_OBJECT, _NULL),
    "models": (_ARRAY, _NULL),
    "route": (_STRING, _NULL),
    "provider": (_OBJECT, _NULL),
    "transforms": (_ARRAY, _NULL),
    "plugins": (_ARRAY, _NULL),
    "usage": (_OBJECT, _NULL),
    "reasoning": (_OBJECT, _NULL),
    "include_reasoning": (_BOOLEAN, _NULL),
    "top_k": (_INTEGER, _NULL),
    "min_p": (_NUMBER, _NULL),
    "top_a": (_NUMBER, _NULL),
    "repetition_penalty": (_NUMBER, _NULL),
}

_KINDS = {
    ord('"'): _STRING,
    ord("{"): _OBJECT,
    ord("["): _ARRAY,
    ord("t"): _BOOLEAN,
    ord("f"): _BOOLEAN,
    ord("n"): _NULL,
}
_PEEK_BYTES = 64
_WHOLE_NUMBER = re.compile(rb"-?\d+(?:\.0+)?$")
CONTENT_KINDS: Final = (_STRING, _ARRAY, _NULL)


def check_members(members: Mapping[str, Any]) -> None:
    """Their types, by the first bytes of their raw JSON. Raises InvalidRequest, naming the field and what it takes."""
    for name, value in members.items():
        accepted = FIELDS.get(name)
        if accepted is not None and _KINDS.get(memoryview(value)[0], _NUMBER) not in accepted:
            check_kind(name, bytes(memoryview(value)[:_PEEK_BYTES]), accepted)


def check_kind(name: str, start: bytes, accepted: tuple[str, ...]) -> None:
    """By a value's first bytes."""
    kind = _KINDS.get(start[0], _NUMBER)
    if kind in accepted:
        return
    if kind == _NUMBER and _INTEGER in accepted and _WHOLE_NUMBER.match(start):
        return
    forms = " or ".join(accepted)
    raise InvalidRequest(f"Invalid type for '{name}': expected {forms}, got {kind}.", param=name, code="invalid_type")
