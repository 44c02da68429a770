"""Between OpenAI's JSON and Semantic Kernel's contents, for programs that use the service as a plain connector.

The gateway's own requests do not come here: Semantic Kernel has no field for much of what they hold.
"""

from __future__ import annotations

import json
from typing import Any

from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FinishReason,
    FunctionCallContent,
    FunctionResultContent,
    ImageContent,
    StreamingChatMessageContent,
    StreamingTextContent,
    TextContent,
)

from proxy.infrastructure.chat_completion.sse import event_data, split_events

_FINISH_REASONS: dict[str | None, FinishReason] = {
    reason.value: reason for reason in FinishReason
}  # others ("error") have no place there


def history_messages(history: ChatHistory) -> list[dict[str, Any]]:
    """The messages of a history in OpenAI's format; a tool message for each function result."""
    messages: list[dict[str, Any]] = []
    for message in history.messages:
        results = [item for item in message.items if isinstance(item, FunctionResultContent)]
        messages += [
            {"role": "tool", "tool_call_id": result.id, "content": _result_text(result.result)} for result in results
        ] or [_message(message)]
    return messages


def _message(message: ChatMessageContent) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role.value}
    if message.name:
        out["name"] = message.name
    calls = [item for item in message.items if isinstance(item, FunctionCallContent)]
    parts = [part for item in message.items if (part := _part(item)) is not None]
    if any(part["type"] != "text" for part in parts):
        out["content"] = parts
    else:
        out["content"] = "".join(part["text"] for part in parts) if parts or not calls else None
    if calls:
        out["tool_calls"] = [_tool_call(call) for call in calls]
    return out


def _part(item: Any) -> dict[str, Any] | None:
    if isinstance(item, TextContent):
        return {"type": "text", "text": item.text}
    if isinstance(item, ImageContent):
        return {"type": "image_url", "image_url": {"url": str(item.data_uri or item.uri)}}
    return None


def _result_text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, default=str)


def _tool_call(call: FunctionCallContent) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments or {})
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def message_contents(body: bytes, model: str, metadata: dict[str, Any]) -> list[ChatMessageContent]:
    """One content for each choice of a completion; `inner_content` is the parsed choice."""
    contents = []
    for choice in json.loads(body)["choices"]:
        message = choice.get("message") or {}
        items: list[Any] = [TextContent(text=message["content"])] if message.get("content") else []
        items += [_function_call(call) for call in message.get("tool_calls") or []]
        contents.append(
            ChatMessageContent(
                role=AuthorRole.ASSISTANT,
                items=items,
                ai_model_id=model,
                finish_reason=_FINISH_REASONS.get(choice.get("finish_reason")),
                inner_content=choice,
                metadata=metadata,
            )
        )
    return contents


def chunk_contents(
    data: bytes, model: str, metadata: dict[str, Any], attempt: int
) -> list[StreamingChatMessageContent]:
    """What some whole events of a stream say: one content for each choice in them, at least one in all."""
    contents = [
        StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT,
            choice_index=choice.get("index", 0),
            items=_delta_items(choice),
            ai_model_id=model,
            finish_reason=_FINISH_REASONS.get(choice.get("finish_reason")),
            inner_content=choice,
            metadata=metadata,
            function_invoke_attempt=attempt,
        )
        for event in split_events(data)[0]
        for choice in _choices(event)
    ]
    return contents or [
        StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT, choice_index=0, content="", ai_model_id=model, metadata=metadata
        )
    ]


def _choices(event: bytes) -> list[dict[str, Any]]:
    """The choices of an event; none in one that cannot be read, as the gateway's own clients pass over it too."""
    try:
        chunk = json.loads(event_data(event) or b"null")
    except ValueError:
        return []
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    return [choice for choice in choices or [] if isinstance(choice, dict)]


def _delta_items(choice: dict[str, Any]) -> list[Any]:
    delta = choice.get("delta") or {}
    items: list[Any] = []
    if delta.get("content"):
        items.append(StreamingTextContent(text=delta["content"], choice_index=choice.get("index", 0)))
    return items + [_function_call(call) for call in delta.get("tool_calls") or []]


def _function_call(call: dict[str, Any]) -> FunctionCallContent:
    function = call.get("function") or {}
    return FunctionCallContent(
        id=call.get("id"), index=call.get("index"), name=function.get("name"), arguments=function.get("arguments")
    )
