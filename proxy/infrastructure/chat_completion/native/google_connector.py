"""Semantic Kernel's Google AI connector, with what it leaves out.

As of 1.45 the connector takes one system message and only the first part of it, makes up ids for calls that repeat
themselves, changes functions' names (`a__b` to `a-b`), knows three of the finish reasons, fails on chunks and answers
without candidates (blocked prompts among them), leaves thoughts out of usage, and has no seed, penalties, thinking, or
JSON Schema for the answer. Its two inner entrances and the hook for histories are overridden for that; the client, the
settings and the parts for texts and images are its own.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from google.genai import Client
from google.genai.types import (
    Candidate,
    Content,
    FunctionCall,
    FunctionResponse,
    GenerateContentConfig,
    GenerateContentResponse,
    GenerateContentResponseUsageMetadata,
    MediaModality,
    ModalityTokenCount,
    Part,
)
from google.genai.types import FinishReason as GoogleFinishReason
from multidict import CIMultiDict
from semantic_kernel.connectors.ai.google.google_ai import GoogleAIChatCompletion, GoogleAIChatPromptExecutionSettings
from semantic_kernel.connectors.ai.google.google_ai.services.utils import format_user_message
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
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
from proxy.infrastructure.chat_completion.native.answers import UnusableAnswer
from proxy.infrastructure.chat_completion.native.messages import INSTRUCTIONS, refuse, refuse_late_instructions
from proxy.infrastructure.chat_completion.reported_usage import count_of, served_in

_FINISH_REASONS = {
    GoogleFinishReason.STOP: FinishReason.STOP,
    GoogleFinishReason.MAX_TOKENS: FinishReason.LENGTH,
    GoogleFinishReason.SAFETY: FinishReason.CONTENT_FILTER,
    GoogleFinishReason.RECITATION: FinishReason.CONTENT_FILTER,
    GoogleFinishReason.BLOCKLIST: FinishReason.CONTENT_FILTER,
    GoogleFinishReason.PROHIBITED_CONTENT: FinishReason.CONTENT_FILTER,
    GoogleFinishReason.SPII: FinishReason.CONTENT_FILTER,
}
_BAD_REQUEST = 400
_SERVICE_TIER_HEADER = "x-gemini-service-tier"
# Models that refuse calls without, with 400. The aliases have been of Gemini 3 and later since 2026.
_WANTS_SIGNATURES = re.compile(r"gemini-(?:[3-9]|\d\d|(?:pro|flash|flash-lite)-latest)")
_NO_SIGNATURE = b"skip_thought_signature_validator"


class Blocked(Exception):
    """The prompt was refused; `details` are the members of an error that says so."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details["message"])
        self.details = details


class GoogleSettings(GoogleAIChatPromptExecutionSettings):
    """The connector's settings, and what else the API takes."""

    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_json_schema: Any | None = None
    thinking_config: dict[str, Any] | None = None
    service_tier: str | None = None


class GoogleConnector(GoogleAIChatCompletion):
    """Asks for whole answers and for chunks."""

    def __init__(self, client: Client, *, ai_model_id: str, service_id: str) -> None:
        super().__init__(gemini_model_id=ai_model_id, service_id=service_id, client=client)

    def get_prompt_execution_settings_class(self) -> type[GoogleSettings]:
        return GoogleSettings

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        response = await self._client.aio.models.generate_content(**self._request(chat_history, settings))
        candidate = _candidate(response)
        if candidate is None:
            raise UnusableAnswer("it has no candidates")
        items = [_item(part, index) for index, part in enumerate(_parts(candidate))]
        return [
            ChatMessageContent(
                role=AuthorRole.ASSISTANT,
                items=[item for item in items if item is not None],
                inner_content=response,
                ai_model_id=self.ai_model_id,
                metadata=_metadata(response),
                finish_reason=_finish_reason(candidate) or FinishReason.STOP,
            )
        ]

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        chunks = await self._client.aio.models.generate_content_stream(**self._request(chat_history, settings))
        parts_so_far = 0
        async for chunk in chunks:
            candidate = _candidate(chunk)
            parts = _parts(candidate) if candidate is not None else []
            items = [_streamed_item(part, parts_so_far + index) for index, part in enumerate(parts)]
            parts_so_far += len(parts)
            yield [
                StreamingChatMessageContent(
                    role=AuthorRole.ASSISTANT,
                    choice_index=0,
                    items=[item for item in items if item is not None],
                    inner_content=chunk,
                    ai_model_id=self.ai_model_id,
                    metadata=_metadata(chunk),
                    finish_reason=_finish_reason(candidate) if candidate is not None else None,
                    function_invoke_attempt=function_invoke_attempt,
                )
            ]

    @property
    def _client(self) -> Client:
        if self.client is None:
            raise AssertionError("made without a client")
        return self.client

    def _request(self, chat_history: ChatHistory, settings: PromptExecutionSettings) -> dict[str, Any]:
        refuse_late_instructions(chat_history)
        instructions = [
            Part(text=_plain(item).text)
            for message in chat_history.messages
            if message.role in INSTRUCTIONS
            for item in message.items
        ]
        config = GenerateContentConfig(
            system_instruction=Content(parts=instructions) if instructions else None,
            automatic_function_calling={"disable": True},  # type: ignore[arg-type]
            **settings.prepare_settings_dict(),
        )
        contents = self._prepare_chat_history_for_request(chat_history)
        return {"model": self.ai_model_id, "contents": contents, "config": config}

    def _prepare_chat_history_for_request(
        self,
        chat_history: ChatHistory,
        role_key: str = "role",  # noqa: ARG002
        content_key: str = "content",  # noqa: ARG002
    ) -> list[Content]:
        names = {
            item.id: item.name
            for message in chat_history.messages
            for item in message.items
            if isinstance(item, FunctionCallContent)
        }
        contents: list[Content] = []
        for message in chat_history.messages:
            if message.role in INSTRUCTIONS:
                continue
            role = "model" if message.role == AuthorRole.ASSISTANT else "user"
            parts = [part for item in message.items for part in _sent_parts(item, names)]
            last = contents[-1] if contents else None
            if last is not None and last.role == role and last.parts is not None:
                last.parts.extend(parts)  # results of parallel calls belong together
            else:
                contents.append(Content(role=role, parts=parts))
        if _WANTS_SIGNATURES.search(self.ai_model_id):
            _mark_unsigned_calls(contents)
        return contents


def _mark_unsigned_calls(contents: list[Content]) -> None:
    """The first call of a step must be signed, or else say by these words that its signature is not to be had: another
    model has made it, or the client keeps no more of calls than OpenAI's fields."""
    for content in contents:
        calls = [part for part in content.parts or [] if part.function_call is not None]
        if calls and not any(call.thought_signature for call in calls):
            calls[0].thought_signature = _NO_SIGNATURE


def _plain(item: Any) -> Any:
    """An item that can be carried; the API caches by itself."""
    if "cache_control" in item.metadata:
        refuse(item, "cache_control", "cannot be carried to this provider: its API has no such thing. Leave it out.")
    return item


def _sent_parts(item: Any, names: dict[str | None, str | None]) -> list[Part]:
    _plain(item)
    if isinstance(item, ReasoningContent):
        refuse(item, None, "is another provider's, and cannot be carried to this one. Leave it out.")
    if isinstance(item, ImageContent) and item.uri is not None:
        refuse(item, "image_url.url", "must be a data URL: this provider fetches no images.")
    if isinstance(item, FunctionCallContent):
        call = FunctionCall(id=item.id, name=item.name, args=dict(item.arguments or {}))  # type: ignore[arg-type]
        return [Part(function_call=call, thought_signature=_signature(item))]
    if isinstance(item, FunctionResultContent):
        name = names.get(item.id) or item.name
        if not name:
            refuse(item, "tool_call_id", "is the id of no tool call before it.")
        return [Part(function_response=FunctionResponse(id=item.id, name=name, response={"result": item.result}))]
    parts: list[Part] = format_user_message(ChatMessageContent(role=AuthorRole.USER, items=[item]))
    return parts


def _signature(call: FunctionCallContent) -> bytes | None:
    text = call.metadata.get("thought_signature")
    try:
        return base64.b64decode(text, validate=True) if text else None
    except (binascii.Error, ValueError):
        refuse(call, "extra_content.google.thought_signature", "is no base64.")


def _candidate(response: GenerateContentResponse) -> Candidate | None:
    """The one candidate; None in a chunk that has none. Raises Blocked for a prompt that was refused."""
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        reason = feedback.block_reason.value
        message = feedback.block_reason_message or f"The prompt was blocked ({reason})."
        raise Blocked({"message": message, "code": _BAD_REQUEST, "type": "content_filter", "block_reason": reason})
    return response.candidates[0] if response.candidates else None


def _parts(candidate: Candidate) -> list[Part]:
    return (candidate.content.parts or []) if candidate.content is not None else []


def _finish_reason(candidate: Candidate) -> FinishReason | None:
    """Raises UnusableAnswer for reasons that OpenAI has no word for: `stop` would hide that something is missing."""
    reason = candidate.finish_reason
    if reason is None or reason == GoogleFinishReason.FINISH_REASON_UNSPECIFIED:
        return None
    if reason not in _FINISH_REASONS:
        told = f": {candidate.finish_message}" if candidate.finish_message else ""
        raise UnusableAnswer(f"it ended with {reason.value}{told}")
    return _FINISH_REASONS[reason]


def _item(part: Part, index: int) -> Any:
    if part.function_call is not None:
        return _function_call(part, index)
    if part.thought:
        return ReasoningContent(text=part.text, metadata={"index": index}) if part.text else None
    if (image := _image(part)) is not None:
        return image
    return TextContent(text=part.text) if part.text else None


def _streamed_item(part: Part, index: int) -> Any:
    if part.function_call is not None:
        return _function_call(part, index)
    if part.thought:
        metadata = {"index": index}
        return StreamingReasoningContent(choice_index=0, text=part.text, metadata=metadata) if part.text else None
    if (image := _image(part)) is not None:
        return image
    return StreamingTextContent(choice_index=0, text=part.text) if part.text else None


def _image(part: Part) -> ImageContent | None:
    """What the part shows; Gemini's image models answer with text and images."""
    blob = part.inline_data
    if blob is None or not blob.data or not (blob.mime_type or "").startswith("image/"):
        return None
    return ImageContent(data_uri=f"data:{blob.mime_type};base64,{base64.b64encode(blob.data).decode()}")


def _function_call(part: Part, index: int) -> FunctionCallContent:
    call, signature = part.function_call or FunctionCall(), part.thought_signature
    metadata = {"thought_signature": base64.b64encode(signature).decode()} if signature else {}
    call_id = call.id or f"call_{uuid.uuid4().hex}"
    return FunctionCallContent(id=call_id, index=index, name=call.name, arguments=call.args or {}, metadata=metadata)


def _metadata(response: GenerateContentResponse) -> dict[str, Any]:
    metadata: dict[str, Any] = {"id": response.response_id, "model": response.model_version}
    told = response.usage_metadata
    if told is None:
        return metadata
    return metadata | {"usage": served_in(_service_tier(response), _usage(told))}


def _service_tier(response: GenerateContentResponse) -> str | None:
    """That in which it was made, which is told by a header alone."""
    headers = response.sdk_http_response.headers if response.sdk_http_response else None
    return CIMultiDict(headers or {}).get(_SERVICE_TIER_HEADER)


def _usage(told: GenerateContentResponseUsageMetadata) -> Usage | None:
    """Thoughts are counted beside the answer's tokens; ours are all that are billed as output.

    None without a sensible count of the prompt, or with an odd one of the answer, which is absent where nothing was
    generated; others that make no sense are left out.
    """
    prompt, answer = count_of(told.prompt_token_count), count_of(told.candidates_token_count or 0)
    if prompt is None or answer is None:
        return None
    results, thoughts = count_of(told.tool_use_prompt_token_count), count_of(told.thoughts_token_count)
    return Usage(
        input_tokens=prompt + (results or 0),
        output_tokens=answer + (thoughts or 0),
        cached_tokens=count_of(told.cached_content_token_count),
        reasoning_tokens=thoughts,
        audio_tokens=_of_modality(told.prompt_tokens_details, MediaModality.AUDIO),
        image_tokens=_of_modality(told.prompt_tokens_details, MediaModality.IMAGE),
        audio_output_tokens=_of_modality(told.candidates_tokens_details, MediaModality.AUDIO),
        image_output_tokens=_of_modality(told.candidates_tokens_details, MediaModality.IMAGE),
    )


def _of_modality(details: Sequence[ModalityTokenCount] | None, modality: MediaModality) -> int | None:
    counts = [count_of(each.token_count) for each in details or () if each.modality is modality]
    return sum(count for count in counts if count is not None) if counts else None
