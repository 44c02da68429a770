"""Semantic Kernel's contents as OpenAI would have answered.

A connector's contents hold text, reasoning and function calls as items, and in their `metadata` what it knows of `id`,
`model` and `usage` (a domain Usage, or None for one that makes no sense; later ones replace earlier ones, and one that
is told before anything is written is marked as estimated). Reasoning goes out as OpenRouter sends it: `reasoning` for
reading, `reasoning_details` to be sent back; so do images, in `images`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from semantic_kernel.contents import (
    ChatMessageContent,
    FinishReason,
    FunctionCallContent,
    ImageContent,
    StreamingChatMessageContent,
    TextContent,
)
from semantic_kernel.contents.reasoning_content import ReasoningContent

from proxy.domain.chat import AnswerFacts, Usage
from proxy.domain.values import estimate_tokens

DONE = b"data: [DONE]\n\n"
_REASONING_FORMAT = "anthropic-claude-v1"


class UnusableAnswer(Exception):
    """What came is no answer that a client could use; the text says why."""


def completion(content: ChatMessageContent, model: str) -> bytes:
    """The whole answer; `model` is its name where the provider tells none."""
    texts = [item.text for item in content.items if isinstance(item, TextContent)]
    calls = [item for item in content.items if isinstance(item, FunctionCallContent)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
    if thoughts := [item for item in content.items if isinstance(item, ReasoningContent)]:
        common = {"format": _REASONING_FORMAT}
        details = [_reasoning_detail(thought, {**common, "index": i}) for i, thought in enumerate(thoughts)]
        message |= _reasoning(thoughts, details)
    if images := [item for item in content.items if isinstance(item, ImageContent)]:
        message["images"] = [_image(image, index) for index, image in enumerate(images)]
    if calls:
        message["tool_calls"] = [
            _named(call) | {"function": {"name": call.name, "arguments": _arguments(call) or "{}"}} for call in calls
        ]
    usage = content.metadata.get("usage")
    answer: dict[str, Any] = {
        "id": content.metadata.get("id"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": content.metadata.get("model") or model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(content.finish_reason, calls)}
        ],
    }
    if usage is not None:
        answer |= _told(usage)
    return json.dumps(answer, separators=(",", ":")).encode()


class ChunkWriter:
    """Writes contents as chunks, and knows what the stream has said of itself: a FactSource."""

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._asked_model = model
        self._include_usage = include_usage
        self._created = int(time.time())
        self._calls: dict[int | None, int] = {}  # by the index that the connector gives a call
        self._without_arguments: set[int] = set()
        self._thoughts: dict[int | None, int] = {}  # by the index that the connector gives a piece of reasoning
        self._images = 0
        self._characters = 0
        self._has_begun = False
        self.id: str | None = None
        self.model: str | None = None
        self.usage: Usage | None = None
        self.finish_reason: FinishReason | None = None

    def facts(self) -> AnswerFacts:
        """What was told before the provider has said why it ended is not the whole: it is marked as estimated."""
        finish, usage = self.finish_reason, self.usage
        if usage is not None and (usage.estimated or not finish):
            written = max(usage.output_tokens, self.estimated_output_tokens())
            usage = usage._replace(output_tokens=written, estimated=True)
        return AnswerFacts(
            usage=usage,
            model=self.model,
            generation_id=self.id,
            finish_reason=finish.value if finish else None,
        )

    def estimated_output_tokens(self) -> int:
        return estimate_tokens(self._characters)

    def write(self, content: StreamingChatMessageContent) -> bytes:
        """The events for a content; none if it says nothing to the client."""
        metadata = content.metadata
        self.id = _text(metadata.get("id")) or self.id
        self.model = _text(metadata.get("model")) or self.model
        self.usage = metadata.get("usage", self.usage)
        self.finish_reason = content.finish_reason or self.finish_reason
        return b"".join(self._delta(delta) for item in content.items for delta in self._deltas(item))

    def opening(self) -> bytes:
        """The first event, which says who speaks; nothing if it was written already."""
        return b"" if self._has_begun else self._delta({"content": ""})

    def closing(self) -> bytes:
        """The last events: why it ended, usage if it was asked for, and `[DONE]`."""
        empty = sorted(self._without_arguments)
        data = b"".join(self._delta(_call_delta(index, {"arguments": "{}"})) for index in empty)
        data += self.opening() + self._chunk([_choice({}, _finish(self.finish_reason, self._calls))])
        if self._include_usage and self.usage is not None and not self.usage.estimated:
            data += self._chunk([], **_told(self.usage))
        return data + DONE

    def _deltas(self, item: Any) -> Iterable[dict[str, Any]]:
        if isinstance(item, TextContent) and item.text:
            self._characters += len(item.text)
            yield {"content": item.text}
        elif isinstance(item, ReasoningContent):
            self._characters += len(item.text or "")
            yield self._reasoning_delta(item)
        elif isinstance(item, ImageContent):
            yield {"images": [_image(item, self._images)]}
            self._images += 1
        elif isinstance(item, FunctionCallContent):
            yield from self._call_deltas(item)

    def _reasoning_delta(self, thought: ReasoningContent) -> dict[str, Any]:
        """SDKs take a detail's index for its place in the list, and put the texts of its fragments together."""
        told = thought.metadata.get("index")
        common: dict[str, Any] = {} if told in self._thoughts else {"format": _REASONING_FORMAT}
        common["index"] = self._thoughts.setdefault(told, len(self._thoughts))
        return _reasoning([thought], [_reasoning_detail(thought, common)])

    def _call_deltas(self, call: FunctionCallContent) -> Iterable[dict[str, Any]]:
        """The first fragment of a call has its id and name."""
        arguments = _arguments(call)
        self._characters += len(arguments)
        if call.index not in self._calls:
            index = self._calls[call.index] = len(self._calls)
            self._without_arguments.add(index)
            self._characters += len(call.name or "")
            yield _call_delta(index, {"name": call.name, "arguments": arguments}, _named(call))
        elif arguments:
            yield _call_delta(self._calls[call.index], {"arguments": arguments})
        if arguments:
            self._without_arguments.discard(self._calls[call.index])

    def _delta(self, delta: dict[str, Any]) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            delta = {"role": "assistant", **delta}
        return self._chunk([_choice(delta, None)])

    def _chunk(self, choices: list[dict[str, Any]], **members: Any) -> bytes:
        chunk = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model or self._asked_model,
            "choices": choices,
            **members,
        }
        if self._include_usage and choices:
            chunk["usage"] = None
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _text(value: Any) -> str | None:
    """None for what is no text: not every SDK checks what it was sent."""
    return value if isinstance(value, str) else None


def _choice(delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _call_delta(index: int, function: dict[str, Any], named: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **(named or {}), "function": function}]}


def _named(call: FunctionCallContent) -> dict[str, Any]:
    """What the first fragment of a call has beside its function; a thought's signature where Google itself puts it."""
    signature = call.metadata.get("thought_signature")
    extra = {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}
    return {"id": call.id, "type": "function", **extra}


def _arguments(call: FunctionCallContent) -> str:
    if isinstance(call.arguments, str):
        return call.arguments
    return "" if call.arguments is None else json.dumps(call.arguments, ensure_ascii=False)


def _finish(reason: FinishReason | None, calls: Any) -> str:
    """Some providers end with a plain stop after tool calls too."""
    if reason in (None, FinishReason.STOP):
        return "tool_calls" if calls else "stop"
    return reason.value if reason else "stop"


def _image(image: ImageContent, index: int) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.data_uri}, "index": index}


def _reasoning(thoughts: Iterable[ReasoningContent], details: list[dict[str, Any]]) -> dict[str, Any]:
    """The members of a message or a delta for its reasoning."""
    text = "".join(thought.text or "" for thought in thoughts)
    return ({"reasoning": text} if text else {}) | {"reasoning_details": details}


def _reasoning_detail(thought: ReasoningContent, common: dict[str, Any]) -> dict[str, Any]:
    if "data" in thought.metadata:
        return {"type": "reasoning.encrypted", "data": thought.metadata["data"], **common}
    detail = {"type": "reasoning.text", **({"text": thought.text} if thought.text else {}), **common}
    signature = thought.metadata.get("signature")
    return {**detail, "signature": signature} if signature else detail


def _told(usage: Usage) -> dict[str, Any]:
    """The members of an answer, or of a stream's last chunk, for it."""
    tier = {} if usage.service_tier is None else {"service_tier": usage.service_tier}
    return {**tier, "usage": _usage(usage)}


def _usage(usage: Usage) -> dict[str, Any]:
    counted: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    prompt = {
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "audio_tokens": usage.audio_tokens,
        "image_tokens": usage.image_tokens,
    }
    completion = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": usage.audio_output_tokens,
        "image_tokens": usage.image_output_tokens,
    }
    for name, details in (("prompt_tokens_details", prompt), ("completion_tokens_details", completion)):
        known = {key: value for key, value in details.items() if value is not None}
        if known:
            counted[name] = known
    return counted
