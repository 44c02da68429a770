"""A raw request beside Semantic Kernel's types: untouched when nothing looks, readable when something does."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pydantic import PrivateAttr
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    ImageContent,
    StreamingChatMessageContent,
    TextContent,
)

from proxy.application.raw_call import LazyHistory, RawSettings
from proxy.application.upstream import UpstreamCall
from proxy.domain.chat import ChatRequest

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    {
        "role": "user",
        "name": "bob",
        "content": [
            {"type": "text", "text": "What is "},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
            {"type": "text", "text": "this?"},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "42"},
    {"role": "function", "name": "f", "content": "43"},
]
NOT_JSON = b"this raises as soon as anything reads it"


def history(*messages: Any) -> LazyHistory:
    return reading(json.dumps(messages or MESSAGES).encode())


def reading(messages: bytes) -> LazyHistory:
    return LazyHistory.reading(ChatRequest(b"{}", "m", False, {"messages": messages}))


def carrying(stream: bool = False, model: str = "a/b") -> tuple[RawSettings, UpstreamCall]:
    call = UpstreamCall(body=b'{"model":"a/b"}', model=model, deadline=0.0)
    request = ChatRequest(body=call.body, model=model, stream=stream, members={})
    return RawSettings.carrying(call, request), call


# RawSettings


def test_settings_carry_the_call_itself() -> None:
    settings, call = carrying()
    assert settings.call is call


@pytest.mark.parametrize("stream", [True, False])
def test_settings_show_model_and_stream_to_filters(stream: bool) -> None:
    settings, _ = carrying(stream, "c/d")
    assert settings.extension_data == {"model": "c/d", "stream": stream}
    assert settings.service_id is None
    assert settings.function_choice_behavior is None


def test_a_deep_copy_is_the_thing_itself() -> None:
    """Semantic Kernel copies settings before each call; the call inside must stay the one that is written to."""
    settings, _ = carrying()
    assert copy.deepcopy(settings) is settings
    assert copy.deepcopy([settings])[0] is settings


COPIES: list[Callable[[RawSettings], PromptExecutionSettings]] = [
    copy.copy,
    lambda settings: settings.model_copy(),
    lambda settings: settings.model_copy(deep=True),
]


@pytest.mark.parametrize("copied", COPIES)
def test_other_copies_carry_the_same_call(copied: Callable[[RawSettings], RawSettings]) -> None:
    settings, call = carrying()
    assert copied(settings).call is call


def test_settings_can_be_looked_at_in_every_way() -> None:
    settings, _ = carrying()
    shown = {"service_id": None, "extension_data": {"model": "a/b", "stream": False}}
    assert settings.model_dump() == shown
    assert json.loads(settings.model_dump_json()) == shown
    assert settings.prepare_settings_dict() == {}
    assert "a/b" in repr(settings)
    assert set(settings.keys) == {"service_id", "extension_data", "function_choice_behavior"}
    assert settings == copy.copy(settings)


def test_neither_body_nor_headers_show_in_a_dump() -> None:
    call = UpstreamCall(body=b"the prompt", model="m", deadline=0.0, headers={"x-key": "secret"})
    settings = RawSettings.carrying(call, ChatRequest(b"the prompt", "m", False, {}))
    for shown in (settings.model_dump_json(), repr(settings), str(settings)):
        assert "the prompt" not in shown
        assert "secret" not in shown


def test_settings_of_a_semantic_kernel_program_carry_no_call() -> None:
    settings = RawSettings(service_id="s", extension_data={"model": "m", "temperature": 0.5})
    assert settings.call is None
    assert settings.extension_data == {"model": "m", "temperature": 0.5}
    converted = RawSettings.from_prompt_execution_settings(PromptExecutionSettings(model="m", max_tokens=7))
    assert converted.call is None
    assert converted.extension_data == {"model": "m", "max_tokens": 7}


# LazyHistory


def test_nothing_is_read_until_something_looks() -> None:
    lazy = reading(NOT_JSON)
    assert lazy.system_message is None
    assert lazy.model_fields_set == set()
    assert not hasattr(lazy, "no_such_thing")
    with pytest.raises(json.JSONDecodeError):
        len(lazy)


def test_a_shallow_or_deep_copy_reads_nothing() -> None:
    assert isinstance(copy.copy(reading(NOT_JSON)), LazyHistory)
    assert isinstance(copy.deepcopy(reading(NOT_JSON)), LazyHistory)
    assert len(copy.deepcopy(history())) == len(MESSAGES)


def test_messages_are_read_once() -> None:
    lazy = history()
    assert lazy.messages is lazy.messages
    lazy.add_user_message("more")
    assert len(lazy) == len(MESSAGES) + 1


def test_roles_appear_in_order() -> None:
    roles = [message.role for message in history()]
    assert roles == [
        AuthorRole.SYSTEM,
        AuthorRole.DEVELOPER,
        AuthorRole.USER,
        AuthorRole.ASSISTANT,
        AuthorRole.TOOL,
        AuthorRole.TOOL,  # "function", the old name of it
    ]


def test_texts_and_names_appear() -> None:
    messages = history().messages
    assert [message.content for message in messages] == ["Be brief.", "Be kind.", "What is ", "", "42", "43"]
    assert [message.name for message in messages] == [None, None, "bob", None, None, "f"]


def test_parts_appear_in_order() -> None:
    first, image, second = history()[2].items
    assert isinstance(first, TextContent)
    assert isinstance(image, ImageContent)
    assert isinstance(second, TextContent)
    assert (first.text, str(image.uri), second.text) == ("What is ", "https://example.org/a.png", "this?")


def test_every_message_holds_what_was_sent() -> None:
    """What Semantic Kernel has no place for, such as tool calls, is in the inner content."""
    assert [message.inner_content for message in history()] == MESSAGES


def test_pictures_inside_the_request_are_not_decoded() -> None:
    data_url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1000}}
    message = history({"role": "user", "content": [data_url, {"type": "text", "text": "this"}]})[0]
    assert [type(item) for item in message.items] == [TextContent]


ODD_PARTS = [
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "f"}},
    {"type": "unheard_of"},
    {},
    {"type": "image_url"},
    {"type": "image_url", "image_url": "https://example.org/a.png"},
    {"type": "image_url", "image_url": {}},
    {"type": "image_url", "image_url": {"url": None}},
    {"type": "image_url", "image_url": {"url": "not a URL"}},
    {"type": "text"},
    "a string where an object belongs",
    None,
    5,
]


@pytest.mark.parametrize("part", ODD_PARTS, ids=json.dumps)
def test_a_part_without_a_place_here_breaks_no_view(part: Any) -> None:
    """The upstream judges what a client sends: whatever passes the gateway must be safe to look at."""
    message = history({"role": "user", "content": [part, {"type": "text", "text": "this"}]})[0]
    texts = [item.text for item in message.items if isinstance(item, TextContent)]
    assert texts[-1] == "this"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": []},
        {"role": "user", "content": "lone \ud800"},
        {"role": "user", "content": "x", "name": 5},
        {"role": "user", "content": "x", "name": None},
    ],
    ids=json.dumps,
)
def test_odd_messages_break_no_view(message: dict[str, Any]) -> None:
    assert len(history(message)) == 1


VIEWS: list[Callable[[LazyHistory], object]] = [
    len,
    list,
    str,
    repr,
    copy.copy,
    copy.deepcopy,
    lambda lazy: lazy[-1],
    lambda lazy: lazy.messages[0] in lazy,
    lambda lazy: lazy.to_prompt(),
    lambda lazy: lazy.serialize(),
    lambda lazy: lazy.model_dump(),
    lambda lazy: lazy.model_dump_json(),
    lambda lazy: lazy.model_copy(deep=True),
    lambda lazy: lazy == ChatHistory(),
]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("touched", [False, True])
def test_a_history_can_be_looked_at_in_every_way(view: Callable[[LazyHistory], object], touched: bool) -> None:
    lazy = history()
    if touched:
        assert lazy.messages
    view(lazy)
    assert len(lazy) == len(MESSAGES)


def test_two_readings_of_the_same_messages_are_equal() -> None:
    assert history() == history()
    assert history() != history({"role": "user", "content": "other"})


@pytest.mark.parametrize("touched", [False, True])
def test_a_dump_holds_the_messages(touched: bool) -> None:
    """A log that dumps the history must not show an empty conversation because nothing had looked before."""
    lazy = history()
    if touched:
        assert lazy.messages
    assert len(lazy.model_dump().get("messages", [])) == len(MESSAGES)
    assert "Be brief." in lazy.model_dump_json()
    assert "Be brief." in lazy.serialize()


def test_a_prompt_can_be_made_of_it() -> None:
    assert "Be brief." in history().to_prompt()
    assert 'role="tool"' in str(history())


# Through Semantic Kernel's public entrances


class Recorder(ChatCompletionClientBase):
    """A service that notes what reaches it."""

    _received: list[tuple[ChatHistory, PromptExecutionSettings]] = PrivateAttr(default_factory=list)

    @property
    def received(self) -> tuple[ChatHistory, PromptExecutionSettings]:
        (only,) = self._received
        return only

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return RawSettings

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        self._received.append((chat_history, settings))
        return []

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        self._received.append((chat_history, settings))
        yield []


async def test_a_whole_call_arrives_as_it_is_and_unread() -> None:
    service, (settings, _), lazy = Recorder(ai_model_id="m"), carrying(), reading(NOT_JSON)
    await service.get_chat_message_contents(lazy, settings)
    assert service.received[0] is lazy
    assert service.received[1] is settings


async def test_a_streamed_call_arrives_as_it_is_and_unread() -> None:
    service, (settings, _), lazy = Recorder(ai_model_id="m"), carrying(stream=True), reading(NOT_JSON)
    async for _ in service.get_streaming_chat_message_contents(lazy, settings):
        pass
    assert service.received[0] is lazy
    assert service.received[1] is settings
