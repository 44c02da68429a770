"""Carrying a client's raw request through Semantic Kernel without copying or parsing it.

Semantic Kernel's public entrances take a `ChatHistory` and `PromptExecutionSettings`. Building either from a request
costs more than relaying it (measured: 24-1000 µs against 5), and loses what they have no field for. So the request
travels beside them: `RawSettings` holds the call, and `LazyHistory` builds its messages only when something looks.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

from pydantic import PrivateAttr, SerializerFunctionWrapHandler, model_serializer
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent, ImageContent, TextContent
from semantic_kernel.kernel_pydantic import KernelBaseModel

from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import ChatRequest
from proxy.domain.json_bytes import look_into

_Model = TypeVar("_Model", bound=KernelBaseModel)
_set = object.__setattr__


def bare(cls: type[_Model], fields: dict[str, Any], private: dict[str, Any] | None = None) -> _Model:
    """An instance with exactly these fields, unvalidated: pydantic's own `model_construct` costs 40 times as much."""
    instance = cls.__new__(cls)
    _set(instance, "__dict__", fields)
    _set(instance, "__pydantic_fields_set__", set())
    _set(instance, "__pydantic_extra__", None)
    _set(instance, "__pydantic_private__", private)
    return instance


class RawSettings(PromptExecutionSettings):
    """Settings that may carry a whole request. Read-only once made, so a copy is the thing itself.

    `call` is None when a Semantic Kernel program made the settings; then `extension_data` holds OpenAI's parameters.
    """

    call: ClassVar[UpstreamCall | None] = None  # an instance's own is in its __dict__: pydantic would take 3 µs a look

    @classmethod
    def carrying(cls, call: UpstreamCall, request: ChatRequest) -> RawSettings:
        fields = {
            "service_id": None,
            "extension_data": {"model": call.model, "stream": request.stream},
            "function_choice_behavior": None,
            "call": call,
        }
        return bare(cls, fields)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self


class LazyHistory(ChatHistory):
    """A history whose messages are read from the raw request on first touch.

    A view for filters and logs: Semantic Kernel has no place for much of OpenAI's message format, so nothing is ever
    sent from it.
    """

    _request: ChatRequest | None = PrivateAttr(default=None)

    @classmethod
    def reading(cls, request: ChatRequest) -> LazyHistory:
        return bare(cls, {"system_message": None}, {"_request": request})

    def __getattr__(self, name: str) -> Any:
        if name != "messages":
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic defines it outside TYPE_CHECKING
        raw = b"[]" if self._request is None else self._request.messages
        messages = [_as_content(message) for message in look_into(raw)]
        self.__dict__["messages"] = messages
        return messages

    @model_serializer(mode="wrap")
    def _with_messages(self, serialize: SerializerFunctionWrapHandler) -> Any:
        _ = self.messages  # a dump reads fields, not attributes: it would leave out what was not touched
        return serialize(self)


_ROLES = {role.value: role for role in AuthorRole}


def _as_content(message: dict[str, Any]) -> ChatMessageContent:
    role = _ROLES.get(message["role"], AuthorRole.TOOL)  # "function", the old name of tool
    content, name = message.get("content"), message.get("name")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    items: list[Any] = [item for part in parts if isinstance(part, dict) and (item := _as_item(part)) is not None]
    return ChatMessageContent(
        role=role, items=items, name=name if isinstance(name, str) else None, inner_content=message
    )


def _as_item(part: dict[str, Any]) -> TextContent | ImageContent | None:
    """Parts that Semantic Kernel has no place for are in the message's `inner_content` only."""
    if part.get("type") == "text":
        return TextContent(text=str(part.get("text", "")))
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else None
    if isinstance(url, str) and url.startswith(("http://", "https://")):
        try:
            return ImageContent(uri=url)
        except ValueError:
            return None
    return None
