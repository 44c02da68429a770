"""The demo upstream's tool calls and structured output, as the official client sees them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionToolParam
from pydantic import BaseModel
from pytest_aiohttp import AiohttpClient

from proxy.infrastructure.demo import demo_app, demo_upstream

CHAT = "/api/v1/chat/completions"
GLM = "z-ai/glm-4.6"
TIME_ZONE: ChatCompletionToolParam = {"type": "function", "function": {"name": "time_zone", "parameters": {}}}
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer"},
                "hourly": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "options": {"type": "object"},
                "ignored": {"type": "string"},
            },
            "required": ["city", "unit", "days", "hourly", "tags", "options"],
        },
    },
}


class Address(BaseModel):
    street: str
    number: int


class Person(BaseModel):
    name: str
    age: int | None
    home: Address
    others: list[Address]


@pytest.fixture
async def client(aiohttp_client: AiohttpClient) -> TestClient[Any, Any]:
    return await aiohttp_client(demo_app(chunk_pause_seconds=0))


def asking(text: str = "Hello there", **members: Any) -> dict[str, Any]:
    return {"model": GLM, "messages": [{"role": "user", "content": text}], **members}


async def choice_of(client: TestClient[Any, Any], request: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(CHAT, json=request)
    assert response.status == 200, await response.text()
    choice: dict[str, Any] = (await response.json())["choices"][0]
    return choice


async def content(client: TestClient[Any, Any], request: dict[str, Any]) -> str:
    return str((await choice_of(client, request))["message"]["content"])


async def test_a_tool_is_called_with_arguments_that_its_schema_asks_for(client: TestClient[Any, Any]) -> None:
    choice = await choice_of(client, asking("Oslo", tools=[WEATHER, TIME_ZONE]))
    [call] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {
        "city": "Oslo",
        "unit": "celsius",
        "days": 1,
        "hourly": True,
        "tags": [],
        "options": {},
    }


async def test_a_streamed_tool_call_names_itself_once_and_splits_its_arguments(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking("Oslo", tools=[WEATHER], stream=True))
    events = re.findall(r"^data: ({.*)$", await response.text(), re.MULTILINE)
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    first, *rest = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert first["id"].startswith("call_")
    assert first["function"] == {"name": "weather", "arguments": ""}
    assert len(rest) > 3
    assert all(call.keys() == {"index", "function"} and call["function"].keys() == {"arguments"} for call in rest)
    assert json.loads("".join(call["function"]["arguments"] for call in rest))["city"] == "Oslo"
    assert choices[-1]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("tool_choice", "called"),
    [
        ("auto", "weather"),
        ("required", "weather"),
        ("none", None),
        ({"type": "function", "function": {"name": "time_zone"}}, "time_zone"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TIME_ZONE]}}, "time_zone"),
    ],
)
async def test_tool_choice_decides(client: TestClient[Any, Any], tool_choice: object, called: str | None) -> None:
    choice = await choice_of(client, asking(tools=[WEATHER, TIME_ZONE], tool_choice=tool_choice))
    calls = choice["message"].get("tool_calls", [None])
    assert (calls[0] and calls[0]["function"]["name"]) == called


async def test_after_a_tools_result_comes_text_that_quotes_it(client: TestClient[Any, Any]) -> None:
    messages = [{"role": "user", "content": "Oslo"}, {"role": "tool", "tool_call_id": "1", "content": "12 degrees"}]
    text = await content(client, asking(messages=messages, tools=[WEATHER]))
    assert 'The tool answered: "12 degrees"' in text


async def test_text_format_changes_nothing(client: TestClient[Any, Any]) -> None:
    assert await content(client, asking(response_format={"type": "text"})) == await content(client, asking())


async def test_json_object_format_gives_an_object(client: TestClient[Any, Any]) -> None:
    text = await content(client, asking("Hi", response_format={"type": "json_object"}))
    assert json.loads(text) == {"answer": "Hi"}


async def test_the_openai_client_works_against_it() -> None:
    """Plain, stream, tools and structured output, on the server as the gateway starts it."""
    async with (
        demo_upstream(demo_app(chunk_pause_seconds=0)) as base_url,
        AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as openai,
    ):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api/v1/", base_url)
        plain = await openai.chat.completions.create(model=GLM, messages=[{"role": "user", "content": "Hi"}])
        assert "demo upstream" in str(plain.choices[0].message.content)
        assert plain.usage is not None
        assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens

        async with openai.chat.completions.stream(model=GLM, messages=[{"role": "user", "content": "Hi"}]) as stream:
            streamed = await stream.get_final_completion()
        assert streamed.choices[0].message.content == plain.choices[0].message.content
        assert streamed.usage == plain.usage

        async with openai.chat.completions.stream(
            model=GLM, messages=[{"role": "user", "content": "Oslo"}], tools=[WEATHER]
        ) as stream:
            calling = await stream.get_final_completion()
        assert calling.choices[0].message.tool_calls is not None
        assert json.loads(calling.choices[0].message.tool_calls[0].function.arguments)["city"] == "Oslo"

        parsed = await openai.chat.completions.parse(
            model=GLM, messages=[{"role": "user", "content": "Ada"}], response_format=Person
        )
        assert parsed.choices[0].message.parsed == Person(
            name="Ada", age=1, home=Address(street="Ada", number=1), others=[]
        )
        assert GLM in [model.id async for model in openai.models.list()]
