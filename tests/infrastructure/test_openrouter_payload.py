"""OpenRouterChatCompletion as a plain Semantic Kernel connector: the payload that it makes of history and settings."""

from __future__ import annotations

import copy
import json
from typing import Any

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatPromptExecutionSettings
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FinishReason,
    FunctionCallContent,
    FunctionResultContent,
    ImageContent,
    TextContent,
)
from semantic_kernel.functions import kernel_function

from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from tests.harness import COMPLETION, Upstream, says
from tests.infrastructure.conftest import API_KEY, ask, hello, settings

USER = {"role": "user", "content": "Hello"}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather-get", "arguments": '{"city":"Brno"}'}}


def sent(upstream: Upstream) -> dict[str, Any]:
    """The one payload that reached the upstream."""
    (body,) = upstream.bodies
    payload: dict[str, Any] = json.loads(body)
    return payload


async def sent_messages(service: OpenRouterChatCompletion, upstream: Upstream, *messages: Any) -> Any:
    await service.get_chat_message_contents(ChatHistory(messages=list(messages)), settings())
    return sent(upstream)["messages"]


# What is sent


async def test_the_payload_is_what_was_asked_for(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    await ask(service, model="deepseek-ai/DeepSeek-V3.1-Terminus", temperature=0.7, max_tokens=2000)
    assert sent(upstream) == {
        "model": "deepseek-ai/DeepSeek-V3.1-Terminus",
        "messages": [USER],
        "temperature": 0.7,
        "max_tokens": 2000,
    }
    headers = upstream.headers[0]
    assert headers["Authorization"] == f"Bearer {API_KEY}"
    assert headers["Content-Type"] == "application/json"


async def test_nothing_is_invented(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    """No max_tokens, no temperature; the model is the service's own."""
    await ask(service)
    assert sent(upstream) == {"model": "z-ai/glm-4.6", "messages": [USER]}


async def test_every_parameter_goes_out_as_given(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    """Known or not, null or nested."""
    parameters = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "provider": {"order": ["a", "b"], "allow_fallbacks": False},
        "seed": 2**60,
        "stop": None,
        "n": 2,
        "not_yet_invented": [1, {"x": 1.5}],
    }
    await ask(service, **copy.deepcopy(parameters))
    assert sent(upstream) == {"model": "z-ai/glm-4.6", "messages": [USER], **parameters}


async def test_each_role_keeps_its_name(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    history = ChatHistory(system_message="Be brief.")
    history.add_developer_message("Speak Czech.")
    history.add_user_message("Ahoj", name="eva")
    history.add_assistant_message("Ahoj!")
    history.add_user_message("")
    await service.get_chat_message_contents(history, settings())
    assert sent(upstream)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Speak Czech."},
        {"role": "user", "name": "eva", "content": "Ahoj"},
        {"role": "assistant", "content": "Ahoj!"},
        {"role": "user", "content": ""},
    ]


async def test_images_stay_where_they_are_between_texts(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    items: list[Any] = [
        TextContent(text="first"),
        ImageContent(uri="https://example.com/a.png?x=1&y=2"),
        TextContent(text="second"),
        ImageContent(data_uri=picture),
    ]
    messages = await sent_messages(service, upstream, ChatMessageContent(role=AuthorRole.USER, items=items))
    assert messages == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "first"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png?x=1&y=2"}},
                {"type": "text", "text": "second"},
                {"type": "image_url", "image_url": {"url": picture}},
            ],
        }
    ]


async def test_tool_calls_and_their_results_are_told(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    calls = [
        FunctionCallContent(id="call_1", name="weather-get", arguments='{"city":"Brno"}'),
        FunctionCallContent(id="call_2", name="weather-get", arguments={"city": "Žďár"}),
        FunctionCallContent(id="call_3", name="now"),
    ]
    results = [
        FunctionResultContent(id="call_1", name="weather-get", result="rain"),
        FunctionResultContent(id="call_2", name="weather-get", result="snow"),
    ]
    messages = await sent_messages(
        service,
        upstream,
        ChatMessageContent(role=AuthorRole.ASSISTANT, items=list(calls)),
        ChatMessageContent(role=AuthorRole.TOOL, items=list(results)),
        ChatMessageContent(role=AuthorRole.TOOL, items=[FunctionResultContent(id="call_3", name="now", result=12)]),
    )
    assistant, *tools = messages
    assert assistant["role"] == "assistant"
    assert assistant["content"] is None
    assert assistant["tool_calls"][0] == TOOL_CALL
    assert [json.loads(call["function"]["arguments"]) for call in assistant["tool_calls"][1:]] == [{"city": "Žďár"}, {}]
    assert tools == [
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": "snow"},
        {"role": "tool", "tool_call_id": "call_3", "content": "12"},
    ]


async def test_a_tool_result_that_is_an_object_is_told_as_json(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    """Models read JSON, not Python."""
    result = FunctionResultContent(id="call_1", name="now", result={"hour": 12, "night": False, "zone": None})
    (message,) = await sent_messages(service, upstream, ChatMessageContent(role=AuthorRole.TOOL, items=[result]))
    assert json.loads(message["content"]) == {"hour": 12, "night": False, "zone": None}


async def test_text_beside_a_tool_call_is_kept(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    items: list[Any] = [
        TextContent(text="Let me look."),
        FunctionCallContent(id="call_1", name="weather-get", arguments='{"city":"Brno"}'),
    ]
    messages = await sent_messages(service, upstream, ChatMessageContent(role=AuthorRole.ASSISTANT, items=items))
    assert messages == [{"role": "assistant", "content": "Let me look.", "tool_calls": [TOOL_CALL]}]


async def test_an_answer_can_be_sent_back_as_history(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    upstream.answer(says({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
    history = hello()
    history.add_message(await ask(service))
    upstream.answer(says())
    await service.get_chat_message_contents(history, settings())
    assert sent(upstream)["messages"] == [USER, message]


# Settings


async def test_settings_of_another_service_are_understood(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    """By the names that they have on the wire; what was not set is not sent."""
    theirs = OpenAIChatPromptExecutionSettings(
        service_id="openrouter",
        ai_model_id="openai/gpt-4o",
        temperature=0.2,
        max_tokens=50,
        number_of_responses=2,
        stop=["END"],
    )
    await service.get_chat_message_contents(hello(), theirs)
    assert sent(upstream) == {
        "model": "openai/gpt-4o",
        "messages": [USER],
        "temperature": 0.2,
        "max_tokens": 50,
        "n": 2,
        "stop": ["END"],
    }


async def test_the_callers_settings_and_history_stay_as_they_are(service: OpenRouterChatCompletion) -> None:
    data = {"model": "a/b", "temperature": 0.5, "tools": []}
    mine, history = PromptExecutionSettings(extension_data=data), hello()
    before = mine.model_dump(), history.model_dump()
    await service.get_chat_message_contents(history, mine)
    assert (mine.model_dump(), history.model_dump()) == before
    assert data == {"model": "a/b", "temperature": 0.5, "tools": []}


async def test_a_stream_in_the_settings_does_not_make_a_whole_answer_a_stream(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    await ask(service, stream=True)
    assert not sent(upstream).get("stream")


class Weather:
    """A plugin that must not be called."""

    called = False

    @kernel_function(name="get")
    def get(self, city: str) -> str:
        Weather.called = True
        return city


async def test_tool_calls_are_handed_to_the_caller_not_invoked(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    """Even when a kernel with that function is at hand, and told to invoke."""
    message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
    upstream.answer(says({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}))
    kernel = Kernel()
    kernel.add_plugin(Weather(), "weather")
    behaving = PromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
    (content,) = await service.get_chat_message_contents(hello(), behaving, kernel=kernel)
    assert OpenRouterChatCompletion.SUPPORTS_FUNCTION_CALLING is False
    assert not Weather.called
    assert sent(upstream) == {"model": "z-ai/glm-4.6", "messages": [USER]}
    (call,) = content.items
    assert isinstance(call, FunctionCallContent)
    assert (call.id, call.name, call.arguments) == ("call_1", "weather-get", '{"city":"Brno"}')
    assert content.finish_reason is FinishReason.TOOL_CALLS
