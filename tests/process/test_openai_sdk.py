"""The real OpenAI SDK against a running gateway, with nothing changed but its base URL."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.process.conftest import Serving

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello to Ada"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(demo: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{demo.url}/v1", api_key="any", max_retries=0)


def test_a_plain_completion(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="z-ai/glm-4.6", messages=MESSAGES)
    answer = raw.parse()
    assert "Ada" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id == raw.headers["x-request-id"]
    assert float(raw.headers["x-gateway-cost-usd"]) > 0


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="z-ai/glm-4.6", messages=MESSAGES, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Ada" in text
    assert chunks[-1].usage is not None


async def test_the_async_client_and_many_at_once(demo: Serving) -> None:
    async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="any") as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="auto", messages=[{"role": "user", "content": f"I am number {n}"}])
                for n in range(50)
            )
        )
    for number, answer in enumerate(answers):
        assert f"number {number}" in (answer.choices[0].message.content or "")


def test_tools_there_and_back(client: openai.OpenAI) -> None:
    messages = list(MESSAGES)
    answer = client.chat.completions.create(model="z-ai/glm-4.6", messages=messages, tools=[WEATHER])
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)
    messages += [
        answer.choices[0].message.model_dump(exclude_none=True),  # type: ignore[list-item]
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"},
    ]
    final = client.chat.completions.create(model="z-ai/glm-4.6", messages=messages, tools=[WEATHER])
    assert "18 degrees" in (final.choices[0].message.content or "")


def test_streamed_tools(client: openai.OpenAI) -> None:
    arguments, name = "", None
    for chunk in client.chat.completions.create(model="m/x", messages=MESSAGES, tools=[WEATHER], stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                name = name or call.function.name
                arguments += call.function.arguments or ""
    assert name == "get_weather"
    assert "city" in json.loads(arguments)


class Greeting(BaseModel):
    text: str
    polite: bool


def test_structured_output(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model="z-ai/glm-4.6", messages=MESSAGES, response_format=Greeting)
    assert isinstance(answer.choices[0].message.parsed, Greeting)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_errors_have_the_sdk_s_own_classes(
    client: openai.OpenAI, status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(model=f"demo/error-{status}", messages=MESSAGES, stream=stream)
    assert raised.value.status_code == status
    assert raised.value.request_id
    assert isinstance(raised.value.body, dict)
    assert {"message", "type", "param", "code"} <= set(raised.value.body)


def test_a_cut_stream_raises(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="demo/cut", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_bad_request_names_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="z-ai/glm-4.6", messages=MESSAGES, temperature="hot")  # type: ignore[call-overload]
    assert raised.value.param == "temperature"


def test_models(client: openai.OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {"auto", "z-ai/glm-4.6"} <= set(ids)
    assert client.models.retrieve("z-ai/glm-4.6").owned_by == "z-ai"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such-model")


def test_a_stream_that_is_left_early_is_booked_as_such(demo: Serving, client: openai.OpenAI) -> None:
    headers = {"x-request-id": "left-early"}
    long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 2000}]
    with client.chat.completions.create(
        model="z-ai/glm-4.6", messages=long, stream=True, extra_headers=headers
    ) as stream:
        next(iter(stream))
    found: list[dict[str, Any]] = []
    for _ in range(50):
        shown = json.loads(demo.command("logs", "--json", "--limit", "500").stdout)
        found = [row for row in shown["rows"] if row["request_id"] == "left-early"]
        if found:
            break
    assert [row["status"] for row in found] in (["client_disconnected"], ["success"])  # the demo may be quicker
