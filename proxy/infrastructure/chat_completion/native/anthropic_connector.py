"""Semantic Kernel's Anthropic connector, with what it leaves out.

As of 1.45 the connector sends only the text of the first part of a user's message (no images), only the first system
message, and no `cache_control`, `thinking`, `metadata` or `output_config`; it fails on the stop reasons `stop_sequence`
and `refusal`, hands tool calls on only when they are complete, and drops reasoning and the counts of cached tokens.
Its hooks for histories, contents and streams are overridden for that; settings, SDK calls and errors are its own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

from anthropic import AsyncAnthropic
from anthropic.types import (
    Message,
    RawMessageStreamEvent,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from pydantic import BaseModel, model_validator
from semantic_kernel.connectors.ai.anthropic import AnthropicChatCompletion, AnthropicChatPromptExecutionSettings
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
from semantic_kernel.contents.reasoning_content import ReasoningContent
from semantic_kernel.contents.streaming_reasoning_content import StreamingReasoningContent

from proxy.domain.chat import Usage
from proxy.domain.price_tiers import priced_service_tier
from proxy.infrastructure.chat_completion.native.messages import INSTRUCTIONS, refuse, refuse_late_instructions
from proxy.infrastructure.chat_completion.reported_usage import count_of

_FINISH_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "pause_turn": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_ODD_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_NONE_YET = {"output_tokens": None}  # what a stream begins with is only those so far


class AnthropicSettings(AnthropicChatPromptExecutionSettings):
    """The connector's settings, and what else the API takes."""

    system: str | list[dict[str, Any]] | None = None  # type: ignore[assignment]
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None
    service_tier: str | None = None

    @model_validator(mode="after")
    def validate_tool_choice(self) -> AnthropicSettings:
        """Takes the place of the connector's check, which refuses `none`: the API has it now."""
        return self


class AnthropicConnector(AnthropicChatCompletion):
    """Asks for whole messages and for raw events."""

    def __init__(self, client: AsyncAnthropic, *, ai_model_id: str, service_id: str) -> None:
        """The key is the client's; without one here, Semantic Kernel would look for it in the environment."""
        super().__init__(ai_model_id=ai_model_id, service_id=service_id, api_key=client.api_key, async_client=client)

    def get_prompt_execution_settings_class(self) -> type[AnthropicSettings]:
        return AnthropicSettings

    def _prepare_chat_history_for_request(
        self,
        chat_history: ChatHistory,
        role_key: str = "role",
        content_key: str = "content",
        stream: bool = False,  # noqa: ARG002, FBT002
    ) -> tuple[list[dict[str, Any]], Any]:
        refuse_late_instructions(chat_history)
        system: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = []
        for message in chat_history.messages:
            blocks = [_block(item) for item in message.items]
            if message.role in INSTRUCTIONS:
                system += blocks
                continue
            role = "assistant" if message.role == AuthorRole.ASSISTANT else "user"
            for image in message.items if role == "assistant" else ():
                if isinstance(image, ImageContent):
                    refuse(image, None, "is another provider's, and cannot be carried to this one. Leave it out.")
            if messages and messages[-1][role_key] == role:
                messages[-1][content_key] += blocks  # results of parallel calls belong together
            else:
                messages.append({role_key: role, content_key: blocks})
        return messages, system or None

    def _create_chat_message_content(
        self,
        response: Message,
        response_metadata: dict[str, Any],  # noqa: ARG002
    ) -> ChatMessageContent:
        return ChatMessageContent(
            inner_content=response,
            ai_model_id=self.ai_model_id,
            metadata={"id": response.id, "model": response.model, "usage": _usage(_members(response.usage))},
            role=AuthorRole.ASSISTANT,
            items=[_item(block, index) for index, block in enumerate(response.content)],
            finish_reason=_FINISH_REASONS.get(response.stop_reason or "", FinishReason.STOP),
        )

    async def _send_chat_stream_request(
        self, settings: AnthropicChatPromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], None]:
        """Not by the SDK's `messages.stream`, which parses all of a tool call's arguments again at each fragment."""
        reader = _EventReader(self.ai_model_id, function_invoke_attempt)
        async with await self.async_client.messages.create(**settings.prepare_settings_dict(), stream=True) as events:
            async for event in events:
                yield [reader.read(event)]


class _EventReader:
    """Contents for a stream's events. The finish reason comes with the last: before that the message is not whole."""

    def __init__(self, ai_model_id: str, function_invoke_attempt: int) -> None:
        self._ai_model_id = ai_model_id
        self._function_invoke_attempt = function_invoke_attempt
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None

    def read(self, event: RawMessageStreamEvent) -> StreamingChatMessageContent:
        items: list[Any] = []
        metadata: dict[str, Any] = {}
        finish_reason: FinishReason | None = None
        if event.type == "message_start":
            self._usage = _members(event.message.usage) | _NONE_YET
            metadata = {"id": event.message.id, "model": event.message.model, "usage": _so_far(self._usage)}
        elif event.type == "content_block_start":
            items = _started(event.content_block, event.index)
        elif event.type == "content_block_delta":
            items = _continued(event.delta, event.index)
        elif event.type == "message_delta":
            self._stop_reason = event.delta.stop_reason
            self._usage |= {name: count for name, count in _members(event.usage).items() if count is not None}
            metadata = {"usage": _usage(self._usage)}
        elif event.type == "message_stop":
            finish_reason = _FINISH_REASONS.get(self._stop_reason or "", FinishReason.STOP)
        return StreamingChatMessageContent(
            role=AuthorRole.ASSISTANT,
            choice_index=0,
            items=items,
            inner_content=event,
            metadata=metadata,
            finish_reason=finish_reason,
            ai_model_id=self._ai_model_id,
            function_invoke_attempt=self._function_invoke_attempt,
        )


def _block(item: Any) -> dict[str, Any]:
    """The API's block for an item of a history."""
    control = {"cache_control": item.metadata["cache_control"]} if item.metadata.get("cache_control") else {}
    if isinstance(item, TextContent):
        return {"type": "text", "text": item.text, **control}
    if isinstance(item, ImageContent):
        return {"type": "image", "source": _image_source(item), **control}
    if isinstance(item, FunctionCallContent):
        if "thought_signature" in item.metadata:
            refuse(item, "extra_content", "is another provider's, and cannot be carried to this one. Leave it out.")
        return {"type": "tool_use", "id": _call_id(item), "name": item.name, "input": item.arguments}
    if isinstance(item, FunctionResultContent):
        return {"type": "tool_result", "tool_use_id": _call_id(item), "content": item.result, **control}
    if isinstance(item, ReasoningContent) and "data" in item.metadata:
        return {"type": "redacted_thinking", "data": item.metadata["data"]}
    if isinstance(item, ReasoningContent):
        return {"type": "thinking", "thinking": item.text or "", "signature": item.metadata["signature"]}
    raise TypeError(f"no block for {type(item).__name__}")


def _call_id(item: FunctionCallContent | FunctionResultContent) -> str:
    """The API takes no other characters; other providers' ids (Kimi's `functions.get_weather:0`) have some."""
    return _ODD_IN_IDS.sub(lambda odd: f"_{ord(odd[0]):x}", item.id or "")


def _image_source(image: ImageContent) -> dict[str, Any]:
    if image.uri is not None:
        return {"type": "url", "url": str(image.uri)}
    return {"type": "base64", "media_type": image.mime_type, "data": image.data_string}


def _item(block: Any, index: int) -> Any:
    """The item for a block of a whole answer."""
    if isinstance(block, TextBlock):
        return TextContent(text=block.text)
    if isinstance(block, ToolUseBlock):
        return FunctionCallContent(id=block.id, index=index, name=block.name, arguments=dict(block.input))
    if isinstance(block, ThinkingBlock):
        return ReasoningContent(text=block.thinking, metadata={"signature": block.signature, "index": index})
    if isinstance(block, RedactedThinkingBlock):
        return ReasoningContent(metadata={"data": block.data, "index": index})
    raise TypeError(f"no item for {type(block).__name__}")


def _started(block: Any, index: int) -> list[Any]:
    if isinstance(block, ToolUseBlock):
        return [FunctionCallContent(id=block.id, index=index, name=block.name, arguments="")]
    if isinstance(block, RedactedThinkingBlock):
        return [StreamingReasoningContent(choice_index=0, metadata={"data": block.data, "index": index})]
    if isinstance(block, TextBlock) and block.text:
        return [StreamingTextContent(choice_index=0, text=block.text)]
    return []


def _continued(delta: Any, index: int) -> list[Any]:
    if delta.type == "text_delta":
        return [StreamingTextContent(choice_index=0, text=delta.text)]
    if delta.type == "input_json_delta":
        return [FunctionCallContent(index=index, arguments=delta.partial_json)]
    if delta.type == "thinking_delta":
        return [StreamingReasoningContent(choice_index=0, text=delta.thinking, metadata={"index": index})]
    if delta.type == "signature_delta":
        metadata = {"signature": delta.signature, "index": index}
        return [StreamingReasoningContent(choice_index=0, metadata=metadata)]
    return []


def _members(usage: Any) -> dict[str, Any]:
    """The counts that were told; none if something else was sent in their place, for the SDK checks no types."""
    return usage.model_dump(warnings=False) if isinstance(usage, BaseModel) else {}


def _so_far(counts: dict[str, Any]) -> Usage | None:
    """What a stream begins with: if it is cut, nobody tells more of its input."""
    usage = _usage({**counts, "output_tokens": 0})
    return None if usage is None else usage._replace(estimated=True)


def _usage(counts: dict[str, Any]) -> Usage | None:
    """Their input tokens are those that were neither read from the cache nor written to it; ours are all.

    None without a sensible count of input and of output; others that make no sense are left out.
    """
    fresh, output_tokens = count_of(counts.get("input_tokens")), count_of(counts.get("output_tokens"))
    if fresh is None or output_tokens is None:
        return None
    cached, written = (
        count_of(counts.get("cache_read_input_tokens")),
        count_of(counts.get("cache_creation_input_tokens")),
    )
    details, writing = counts.get("output_tokens_details"), counts.get("cache_creation")
    tier = counts.get("service_tier")
    return Usage(
        input_tokens=fresh + (cached or 0) + (written or 0),
        output_tokens=output_tokens,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=_count_in(writing, "ephemeral_1h_input_tokens"),
        reasoning_tokens=_count_in(details, "thinking_tokens"),
        service_tier=priced_service_tier(tier) if isinstance(tier, str) else None,
    )


def _count_in(details: Any, name: str) -> int | None:
    return count_of(details.get(name)) if isinstance(details, dict) else None
