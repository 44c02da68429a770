"""Reading a chat completion request without taking it apart.

Members of the top level are told apart by the first byte of their value, which is enough to check every known field's
type; none is decoded, so none can be changed. Of the messages only roles and the kind of content are looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, Literal, get_args

import msgspec

from proxy.domain.chat import ChatRequest
from proxy.domain.errors import InvalidRequest
from proxy.domain.json_bytes import nests_deeper_than, without_surrogate_escapes

MAX_DEPTH: Final = 256
_Role = Literal["developer", "system", "user", "assistant", "tool", "function"]
ROLES: Final[tuple[str, ...]] = get_args(_Role)

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
_DEEP_BYTES = 2 * MAX_DEPTH  # what nests deeper has more
_TOO_DEEP = f"The request body nests deeper than {MAX_DEPTH} levels."
_WHOLE_NUMBER = re.compile(rb"-?\d+(?:\.0+)?$")


class _Message(msgspec.Struct):
    role: str
    content: msgspec.Raw = msgspec.Raw()


class _FlatMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message as most are: a role, and a text that is not made a string of."""

    role: _Role
    content: msgspec.Raw = msgspec.Raw(b"null")


class _PlainMessage(msgspec.Struct):
    """As nearly all others are: its types are checked as it is read, and nobody need go through them after."""

    role: _Role
    content: str | list[msgspec.Raw] | None = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_flat_messages = msgspec.json.Decoder(list[_FlatMessage])
_plain_messages = msgspec.json.Decoder(list[_PlainMessage])
_messages = msgspec.json.Decoder(list[_Message])
_texts = msgspec.json.Decoder(str)
_PATH = re.compile(r" - at `\$\[(\d+)\](?:\.(\w+))?`$")


def read_chat_request(body: bytes) -> ChatRequest:
    """The request in a body. Raises InvalidRequest, naming the field and the accepted form."""
    members = _read_members(body)
    for name, value in members.items():
        accepted = FIELDS.get(name)
        if accepted is not None and _KINDS.get(memoryview(value)[0], _NUMBER) not in accepted:
            _check(name, bytes(memoryview(value)[:_PEEK_BYTES]), accepted)
    if "model" not in members or "messages" not in members:
        raise _missing("messages" if "model" in members else "model", members)
    model = _text(members["model"])
    if not model.strip():
        raise InvalidRequest("'model' must not be blank.", param="model", code="invalid_value")
    messages = bytes(members["messages"])
    is_flat = _are_flat(messages)
    if len(body) - is_flat * len(messages) >= _DEEP_BYTES and nests_deeper_than(body, MAX_DEPTH):
        raise InvalidRequest(_TOO_DEEP, code="nesting_too_deep")
    has_parts = not is_flat and _check_messages(messages)
    stream = members.get("stream")
    return ChatRequest(
        body=body,
        model=model,
        stream=stream is not None and bytes(stream) == b"true",
        messages=messages,
        members=members,
        has_parts=has_parts,
    )


def _text(raw: msgspec.Raw) -> str:
    """A JSON string; the library that is faster refuses lone surrogates."""
    try:
        return _texts.decode(raw)
    except msgspec.DecodeError:
        text: str = json.loads(bytes(raw))
        return text


def _read_members(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members, raw."""
    if not body.strip():
        raise InvalidRequest("The request body is empty; send a JSON object.", code="invalid_json")
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as problem:
            raise InvalidRequest(
                f"The request body is not valid UTF-8 (byte {problem.start}).", code="invalid_json"
            ) from None
    try:
        return _decode_members(body)
    except InvalidRequest:
        # The parser refuses lone surrogates, which JSON allows and models produce: look again without them.
        if b"\\u" not in body:
            raise
    return _decode_members(without_surrogate_escapes(body))


def _decode_members(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _members.decode(text)
    except msgspec.ValidationError:
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP, code="nesting_too_deep") from None
    except msgspec.DecodeError as problem:
        reason = str(problem).removeprefix("JSON is malformed: ")
        raise InvalidRequest(f"The request body is not valid JSON: {reason}.", code="invalid_json") from None


def _check(name: str, start: bytes, accepted: tuple[str, ...]) -> None:
    """By a value's first bytes."""
    kind = _KINDS.get(start[0], _NUMBER)
    if kind in accepted:
        return
    if kind == _NUMBER and _INTEGER in accepted and _WHOLE_NUMBER.match(start):
        return
    forms = " or ".join(accepted)
    raise InvalidRequest(f"Invalid type for '{name}': expected {forms}, got {kind}.", param=name, code="invalid_type")


def _missing(name: str, members: Mapping[str, object]) -> InvalidRequest:
    similar = get_close_matches(name, [member for member in members if member not in FIELDS], n=1)
    hint = f" Did you mean it by '{similar[0]}'?" if similar else ""
    return InvalidRequest(f"Missing required field '{name}'.{hint}", param=name, code="missing_required_parameter")


def _are_flat(text: bytes) -> bool:
    """Whether there are messages, and nothing is in them but roles and texts: then nothing is wrong with them."""
    try:
        messages = _flat_messages.decode(text)
    except msgspec.DecodeError:
        return False
    for message in messages:
        if memoryview(message.content)[0] not in b'"n':
            return False
    return bool(messages)


def _check_messages(text: bytes) -> bool:
    """Whether any message's content is a list of parts."""
    try:
        plain = _plain_messages.decode(text)
    except msgspec.DecodeError:
        plain = []
    if plain:
        return list in [type(message.content) for message in plain]
    return _check_messages_closely(text)


def _check_messages_closely(text: bytes) -> bool:
    """Says what is wrong with them; texts with lone surrogates are not wrong."""
    try:
        messages = _messages.decode(text)
    except msgspec.ValidationError as problem:
        raise _invalid_message(str(problem)) from None
    if not messages:
        raise InvalidRequest("'messages' must not be empty.", param="messages", code="invalid_value")
    has_parts = False
    for place, message in enumerate(messages):
        if message.role not in ROLES:
            raise InvalidRequest(
                f"Invalid value for 'messages[{place}].role': expected one of {', '.join(ROLES)}.",
                param=f"messages[{place}].role",
                code="invalid_value",
            )
        content = bytes(memoryview(message.content)[:1])
        if content:
            has_parts = has_parts or content == b"["
            if content != b'"':
                _check(f"messages[{place}].content", content, (_STRING, _ARRAY, _NULL))
    return has_parts


def _invalid_message(problem: str) -> InvalidRequest:
    """From the parser's words (`Expected `str`, got `int` - at `$[0].role``) to ours."""
    found = _PATH.search(problem)
    place = f"messages[{found.group(1)}]" if found else "messages"
    if "missing required field" in problem:
        return InvalidRequest(
            f"Missing required field '{place}.role'.", param=f"{place}.role", code="missing_required_parameter"
        )
    if found and found.group(2):
        return InvalidRequest(
            f"Invalid type for '{place}.{found.group(2)}': expected a string.",
            param=f"{place}.{found.group(2)}",
            code="invalid_type",
        )
    return InvalidRequest(f"Invalid type for '{place}': expected an object.", param=place, code="invalid_type")
