"""Reading a chat completion request without taking it apart.

Members of the top level are told apart by the first byte of their value, which is enough to check every known field's
type; none is decoded, so none can be changed. Of the messages only roles and the kind of content are looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

import msgspec

from proxy.api.openai.fields import CONTENT_KINDS, FIELDS, ROLES, Role, check_kind, check_members
from proxy.api.openai.flat_requests import LONG_BYTES, FlatMembers, FlatMessage, are_flat, flat_members, raw_members
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import InvalidRequest
from proxy.domain.json_bytes import has_more_tokens_than, nests_deeper_than, without_surrogate_escapes

MAX_DEPTH: Final = 256
_DEEP_BYTES = 2 * MAX_DEPTH  # what nests deeper has more
MOST_TOKENS: Final = 200_000
_LARGE_BYTES = 512 * 1024  # no smaller body takes long, whatever is in it
_TOO_MANY_TOKENS = f"The request body holds more than {MOST_TOKENS:,} strings, lists, objects and commas between them."
_TOO_DEEP = f"The request body nests deeper than {MAX_DEPTH} levels."


class _Message(msgspec.Struct):
    role: str
    content: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()


class _PlainMessage(msgspec.Struct):
    """As nearly all others are: its types are checked as it is read, and nobody need go through them after."""

    role: Role
    content: str | list[msgspec.Raw] | None = None
    images: msgspec.Raw = msgspec.Raw()


_flat_messages = msgspec.json.Decoder(list[FlatMessage])
_plain_messages = msgspec.json.Decoder(list[_PlainMessage])
_messages = msgspec.json.Decoder(list[_Message])
_texts = msgspec.json.Decoder(str)
_PATH = re.compile(r" - at `\$\[(\d+)\](?:\.(\w+))?`$")


def read_chat_request(body: bytes) -> ChatRequest:
    """The request in a body. Raises InvalidRequest, naming the field and the accepted form."""
    _check_encoding(body)
    if len(body) >= _LARGE_BYTES and has_more_tokens_than(body, MOST_TOKENS):
        raise InvalidRequest(_TOO_MANY_TOKENS, code="too_complex")
    flat = flat_members(body) if len(body) >= LONG_BYTES else None
    if flat is not None:
        _check_depth(flat)
        return _request(body, _model(flat), flat, has_parts=False)
    members = _read_members(body)
    check_members(members)
    if "model" not in members or "messages" not in members:
        raise _missing("messages" if "model" in members else "model", members)
    model = _model(members)
    return _request(body, model, members, has_parts=_check_messages(body, bytes(members["messages"])))


def _request(body: bytes, model: str, members: Mapping[str, msgspec.Raw], *, has_parts: bool) -> ChatRequest:
    stream = members.get("stream")
    return ChatRequest(body, model, stream is not None and bytes(stream) == b"true", members, has_parts)


def _model(members: Mapping[str, msgspec.Raw]) -> str:
    model = _text(members["model"])
    if not model.strip():
        raise InvalidRequest("'model' must not be blank.", param="model", code="invalid_value")
    return model


def _text(raw: msgspec.Raw) -> str:
    """A JSON string; the library that is faster refuses lone surrogates."""
    try:
        return _texts.decode(raw)
    except msgspec.DecodeError:
        text: str = json.loads(bytes(raw))
        return text


def _check_encoding(body: bytes) -> None:
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as problem:
        raise InvalidRequest(
            f"The request body is not valid UTF-8 (byte {problem.start}).", code="invalid_json"
        ) from None


def _read_members(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members, raw."""
    if not body.strip():
        raise InvalidRequest("The request body is empty; send a JSON object.", code="invalid_json")
    try:
        return _decode_members(body)
    except InvalidRequest:
        # The parser refuses lone surrogates, which JSON allows and models produce: look again without them.
        if b"\\u" not in body:
            raise
    return _decode_members(without_surrogate_escapes(body))


def _decode_members(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        return raw_members.decode(text)
    except msgspec.ValidationError:
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP, code="nesting_too_deep") from None
    except msgspec.DecodeError as problem:
        reason = str(problem).removeprefix("JSON is malformed: ")
        raise InvalidRequest(f"The request body is not valid JSON: {reason}.", code="invalid_json") from None


def _missing(name: str, members: Mapping[str, object]) -> InvalidRequest:
    similar = get_close_matches(name, [member for member in members if member not in FIELDS], n=1)
    hint = f" Did you mean it by '{similar[0]}'?" if similar else ""
    return InvalidRequest(f"Missing required field '{name}'.{hint}", param=name, code="missing_required_parameter")


def _check_depth(members: FlatMembers) -> None:
    """The messages, which are not here, do not nest."""
    for value in members.values():
        raw = memoryview(value)
        if len(raw) >= _DEEP_BYTES and nests_deeper_than(bytes(raw), MAX_DEPTH - 1):
            raise InvalidRequest(_TOO_DEEP, code="nesting_too_deep")


def _check_messages(body: bytes, text: bytes) -> bool:
    """Whether any message's content is a list of parts, or pictures are beside it, as models hand them out."""
    is_flat = _are_flat(text)
    if len(body) - is_flat * len(text) >= _DEEP_BYTES and nests_deeper_than(body, MAX_DEPTH):
        raise InvalidRequest(_TOO_DEEP, code="nesting_too_deep")
    if is_flat:
        return False
    try:
        plain = _plain_messages.decode(text)
    except msgspec.DecodeError:
        plain = []
    if plain:
        return list in [type(message.content) for message in plain] or any(map(_has_images, plain))
    return _check_messages_closely(text)


def _are_flat(text: bytes) -> bool:
    """Whether there are messages, and nothing is in them but roles and texts: then nothing is wrong with them."""
    try:
        return are_flat(_flat_messages.decode(text))
    except msgspec.DecodeError:
        return False


def _check_messages_closely(text: bytes) -> bool:
    """Says what is wrong with them; texts with lone surrogates are not wrong."""
    try:
        messages = _messages.decode(text)
    except msgspec.ValidationError as problem:
        raise _invalid_message(str(problem)) from None
    if not messages:
        raise InvalidRequest("'messages' must not be empty.", param="messages", code="invalid_value")
    has_parts = any(map(_has_images, messages))
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
                check_kind(f"messages[{place}].content", content, CONTENT_KINDS)
    return has_parts


def _has_images(message: _PlainMessage | _Message) -> bool:
    return bytes(memoryview(message.images)[:1]) == b"["


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
