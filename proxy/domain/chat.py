"""A chat completion as the gateway sees it: bytes, and the few facts that decisions read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, NamedTuple

from proxy.domain.json_bytes import look_into
from proxy.domain.price_tiers import priced_service_tier
from proxy.domain.records import record
from proxy.domain.values import CostAmount, estimate_tokens

_TOOLS = ("tools", "functions")


@record
class ChatRequest:
    """A client's request. `body` is what came, unchanged.

    `members` has the raw JSON of each member of the top level, as bytes or as something that bytes are made of; the
    messages may come to be there when they are asked for. `has_parts` is False if it is known that no message has a
    list of parts for its content, nor one of images: then nobody need look for what parts may hold.
    """

    body: bytes
    model: str
    stream: bool
    members: Mapping[str, Any] = field(repr=False, compare=False)
    has_parts: bool = True

    @property
    def messages(self) -> bytes:
        """The raw JSON of the messages, as long as the prompt: not for every request."""
        return bytes(self.members["messages"])

    def member(self, name: str) -> bytes | None:
        """The raw JSON of a member of the top level, None if it is absent."""
        raw = self.members.get(name)
        return None if raw is None else bytes(raw)

    def service_tier(self) -> str | None:
        """That which the request asks for, by the name that prices may know; None for the usual one."""
        raw = self.members.get("service_tier")
        named = None if raw is None else look_into(bytes(raw))
        return priced_service_tier(named) if isinstance(named, str) else None

    def estimated_input_tokens(self) -> int:
        """Text of all messages, four characters to a token. Parses the messages: not for every request."""
        return estimate_tokens(sum(_text_length(message) for message in look_into(self.messages)))

    def estimated_billed_input_tokens(self) -> int:
        """The same for the books: with the tools and the calls of them, as written, which are billed as well."""
        characters = sum(len(self.member(name) or b"") for name in _TOOLS)
        for message in look_into(self.messages):
            characters += _text_length(message) + _calls_length(message)
        return estimate_tokens(characters)

    def content_part_types(self) -> frozenset[str]:
        """The `type`s of all parts of the messages' contents. Parses the messages."""
        contents = [message.get("content") for message in look_into(self.messages) if isinstance(message, dict)]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        types = [part.get("type") for part in parts if isinstance(part, dict)]
        return frozenset(kind for kind in types if isinstance(kind, str))


def _text_length(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return sum(len(text) for text in texts if isinstance(text, str))
    return 0


def _calls_length(message: Any) -> int:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [each.get(name) for each in functions if isinstance(each, dict) for name in ("name", "arguments")]
    return sum(len(text) for text in texts if isinstance(text, str))


class Usage(NamedTuple):
    """Tokens and cost of one completion as the upstream reported them.

    `cost` is what the upstream billed, in USD (OpenRouter's `usage.cost`, say); None when it does not.
    `estimated` marks counts that were not reported but guessed from text lengths. Cached, cache-write, audio and image
    tokens are part of the input (those cached for an hour of the written ones), reasoning, audio output and image
    output tokens part of the output; None where the upstream does not say. `service_tier` is that in which the request
    was served, by the name that prices may know; None for the usual one.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: CostAmount | None = None
    estimated: bool = False
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    service_tier: str | None = None


class AnswerFacts(NamedTuple):
    """What an answer says of itself, as far as it has come; None where it does not say.

    `error_message` is an answer's or a stream's own, `choice_error` that of a choice which broke off. `service_tier` is
    as the answer names it, also where it tells no usage.
    """

    usage: Usage | None = None
    model: str | None = None
    generation_id: str | None = None
    upstream_provider: str | None = None
    finish_reason: str | None = None
    service_tier: str | None = None
    error_message: str | None = None
    choice_error: str | None = None

    @property
    def tells_failure(self) -> bool:
        return self.error_message is not None or self.choice_error is not None


NO_FACTS = AnswerFacts()
