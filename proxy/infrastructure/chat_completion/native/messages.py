"""OpenAI's messages as Semantic Kernel's contents.

What contents have no field for travels in their `metadata`: `path` (where a message or an item stood in the request,
for errors), `cache_control` of a part, the `signature` or `data` of reasoning, the `thought_signature` of a call (in
Google's place for it, `extra_content.google`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, NoReturn

from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FunctionCallContent,
    FunctionResultContent,
    ImageContent,
    TextContent,
)
from semantic_kernel.contents.kernel_content import KernelContent
from semantic_kernel.contents.reasoning_content import ReasoningContent
from semantic_kernel.exceptions import ContentInitializationError

from proxy.domain.errors import InvalidRequest
from proxy.infrastructure.chat_completion.native.members import Members, read_json

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,64});base64,(.*)", re.IGNORECASE | re.DOTALL)
INSTRUCTIONS = (AuthorRole.SYSTEM, AuthorRole.DEVELOPER)
_IDLE = {"refusal": "", "annotations": [], "tool_calls": []}
_DETAILS = ("auto", "low", "high")
# What OpenAI's SDK notes on answers that it has parsed, and sends back with them: the same as the texts say.
_PARSED, _PARSED_ARGUMENTS = ("parsed",), ("parsed_arguments",)


def read_history(request: Members) -> ChatHistory:
    """The history that a request's `messages` are.

    Empty texts, and messages of nothing else (an answer that was stopped before its first word), say nothing, and are
    left out: OpenAI takes them, and these APIs refuse them.

    Raises:
        InvalidRequest: contents cannot hold it, or nothing is said but instructions
    """
    said = [content for message in request.each("messages") if (content := _message(message)).items]
    if all(content.role in INSTRUCTIONS for content in said):
        request.refuse("messages", f"must say something beside instructions for provider '{request.provider}'.")
    return ChatHistory(messages=said)


def refuse_late_instructions(history: ChatHistory) -> None:
    """For APIs with one system prompt, at the beginning: moving later ones there would change what they say.

    Raises:
        InvalidRequest: a system or developer message comes after others
    """
    begun = False
    for message in history.messages:
        if message.role not in INSTRUCTIONS:
            begun = True
        elif begun:
            refuse(message, "role", "comes after others, but this provider has one system prompt, at the beginning.")


def refuse(content: KernelContent, name: str | None, why: str) -> NoReturn:
    """Raises InvalidRequest about what a content was read from."""
    path = content.metadata.get("path", "messages") + (f".{name}" if name else "")
    raise InvalidRequest(f"'{path}' {why}", param=path)


def _message(message: Members) -> ChatMessageContent:
    role = message.take("role")
    if role in ("system", "developer"):
        items: list[Any] = _texts(message)
    elif role == "user":
        items = _parts(message)
    elif role == "assistant":
        images = [_image_part(image) for image in message.each("images")]  # as they were handed out
        items = [*_reasoning(message), *_texts(message), *images, *_tool_calls(message)]
    elif role == "tool":
        items = [_tool_result(message)]
    else:
        message.refuse("role", "must be system, developer, user, assistant or tool.")
    message.finish(_PARSED if role == "assistant" else (), idle=_IDLE)
    return ChatMessageContent(role=AuthorRole(role), items=items, metadata={"path": message.path})


def _parts(message: Members) -> list[Any]:
    """Text, or an array of texts and images."""
    return _contents(message, message.take("content"), _part)


def _texts(message: Members) -> list[Any]:
    """The same where only text may be, or nothing at all."""
    content = message.take("content")
    return [] if content is None else _contents(message, content, _text_part)


def _contents(message: Members, content: Any, read: Callable[[Members], Any]) -> list[Any]:
    """Without empty texts."""
    if isinstance(content, str):
        return [TextContent(text=content)] if content else []
    if not isinstance(content, list):
        message.refuse("content", "must be a string or an array of parts.")
    parts = [read(Members(part, f"{message.at('content')}[{i}]", message.provider)) for i, part in enumerate(content)]
    return [part for part in parts if not (isinstance(part, TextContent) and part.text == "")]


def _part(part: Members) -> TextContent | ImageContent:
    return _image_part(part) if part.look("type") == "image_url" else _text_part(part)


def _text_part(part: Members) -> TextContent:
    if part.take("type") != "text":
        part.refuse("type", f"is one that cannot be carried to provider '{part.provider}' here.")
    text = part.text("text")
    if text is None:
        part.refuse("text", "is required.")
    metadata = _metadata(part)
    part.finish()
    return TextContent(text=text, metadata=metadata)


def _image_part(part: Members) -> ImageContent:
    part.take("type")
    image = part.inside("image_url")
    if image is None:
        part.refuse("image_url", "is required.")
    url = image.required_text("url")
    image.word("detail", _DETAILS)
    image.finish()
    metadata = _metadata(part)
    part.finish(ignored=("index",))
    if data := _DATA_URL.fullmatch(url):
        _check_base64(image, data[2])
        kind = data[1].lower().replace("image/jpg", "image/jpeg")  # which no API knows by its other name
        try:
            return ImageContent(data_uri=f"data:{kind};base64,{data[2]}", metadata=metadata)
        except ContentInitializationError:  # for image/svg+xml, and what else has more than letters
            image.refuse("url", f"is an image of a kind that cannot be carried to provider '{part.provider}'.")
    if not url.lower().startswith(("http://", "https://")):
        image.refuse("url", "must be an http(s) URL, or a data URL of an image in base64.")
    try:
        return ImageContent(uri=url, metadata=metadata)
    except ValueError:
        image.refuse("url", "is not a valid URL.")


def _check_base64(image: Members, data: str) -> None:
    """Semantic Kernel takes what is no base64 for an empty image."""
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        image.refuse("url", "holds no valid base64 data.")


def _metadata(part: Members) -> dict[str, Any]:
    control = part.object("cache_control")
    return {"path": part.path} | ({"cache_control": control} if control else {})


def _reasoning(message: Members) -> list[ReasoningContent]:
    """Earlier reasoning in the form in which OpenRouter, and this gateway, hand it out."""
    words = message.text("reasoning")  # the same in plain words
    contents = []
    for detail in message.each("reasoning_details"):
        kind = detail.take("type")
        detail.finish(ignored=("index", "format", "id", "text", "signature", "data"))
        if kind == "reasoning.text" and (signature := detail.text("signature")):
            signed = {"path": detail.path, "signature": signature}
            contents.append(ReasoningContent(text=detail.text("text") or "", metadata=signed))
        elif kind == "reasoning.encrypted":
            hidden = {"path": detail.path, "data": detail.required_text("data")}
            contents.append(ReasoningContent(metadata=hidden))
        else:
            detail.refuse(None, "must be of type reasoning.text with a signature, or reasoning.encrypted.")
    if words and not contents:
        message.refuse("reasoning", "cannot be carried without its signed form in 'reasoning_details'. Leave it out.")
    return contents


def _tool_calls(message: Members) -> list[FunctionCallContent]:
    return [_tool_call(call) for call in message.each("tool_calls")]


def _tool_call(call: Members) -> FunctionCallContent:
    call_id, kind, function = call.required_text("id"), call.take("type"), call.inside("function")
    if kind not in (None, "function") or function is None:
        call.refuse("type", "must be function.")
    name, text = function.required_text("name"), function.text("arguments")
    function.finish(_PARSED_ARGUMENTS)
    metadata = {"path": call.path} | _thought_signature(call)
    call.finish(ignored=("index",))
    try:
        arguments = read_json(text or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        function.refuse("arguments", "must be the text of a JSON object.")
    return FunctionCallContent(id=call_id, name=name, arguments=arguments, metadata=metadata)


def _thought_signature(call: Members) -> dict[str, Any]:
    extra = call.inside("extra_content")
    if extra is None:
        return {}
    google = extra.inside("google")
    extra.finish()
    if google is None:
        return {}
    signature = google.text("thought_signature")
    google.finish()
    return {"thought_signature": signature} if signature else {}


def _tool_result(message: Members) -> FunctionResultContent:
    call_id, name = message.required_text("tool_call_id"), message.text("name")
    texts = _texts(message)
    controls = [text.metadata["cache_control"] for text in texts if "cache_control" in text.metadata]
    metadata = {"path": message.path} | ({"cache_control": controls[-1]} if controls else {})
    result = "".join(text.text for text in texts)
    return FunctionResultContent(id=call_id, name=name or "", result=result, metadata=metadata)
