"""A gateway over providers with dialects of their own, asked by OpenAI's client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai import AsyncOpenAI
from pydantic import BaseModel

from proxy.domain.request_log import CostSource, RequestStatus, UsageSource
from proxy.domain.values import CostAmount
from tests.harness import FakeTime, TestGateway, cut, gateway_over, says, stall
from tests.providers import anthropic_upstream, google_upstream
from tests.providers.anthropic_upstream import ANTHROPIC
from tests.providers.conftest import AnyPathUpstream
from tests.providers.google_upstream import GOOGLE
from tests.providers.kinds import TOOL_CALL

FILE = """
providers:
  claude: {{kind: anthropic, base_url: "{claude}", api_key: "${{CLAUDE_KEY}}"}}
  gemini: {{kind: google, base_url: "{gemini}", api_key: "${{GEMINI_KEY}}"}}
models:
  smart:
    strategy: priority
    deployments:
      - provider: claude
        model: claude-opus-5
        order: 1
        prices: {{input_usd_per_1m_tokens: 10, output_usd_per_1m_tokens: 100, cached_input_usd_per_1m_tokens: 1}}
      - {{provider: gemini, model: gemini-3-pro, order: 2}}
  "claude/*":
    deployments: [{{provider: claude, model: "*"}}]
  "gemini/*":
    deployments: [{{provider: gemini, model: "*"}}]
"""
CACHED_USAGE = {"input_tokens": 100, "cache_read_input_tokens": 1000, "output_tokens": 10}
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
HELLO: Any = [{"role": "user", "content": "Hello"}]


class City(BaseModel):
    city: str


class Weather(BaseModel):
    words: str


class Native:
    """The gateway, its two upstreams, and a client for it."""

    def __init__(self, gateway: TestGateway, claude: AnyPathUpstream, gemini: AnyPathUpstream) -> None:
        self.gateway = gateway
        self.claude = claude
        self.gemini = gemini
        self.openai = AsyncOpenAI(base_url=str(gateway.url / "v1"), api_key="unused", max_retries=0)


@pytest.fixture
async def native(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Native]:
    monkeypatch.setenv("CLAUDE_KEY", "claude-key")
    monkeypatch.setenv("GEMINI_KEY", "gemini-key")
    async with AsyncExitStack() as stack:
        upstreams = AnyPathUpstream([ANTHROPIC.answers("Hi!")]), AnyPathUpstream([GOOGLE.answers("Hi!")])
        urls = []
        for upstream in upstreams:
            server = TestServer(upstream.app())
            await server.start_server(access_log=None)
            stack.push_async_callback(server.close)
            urls.append(str(server.make_url("/")))
        path = tmp_path / "gateway.yaml"
        path.write_text(FILE.format(claude=urls[0], gemini=urls[1]))
        gateway = await stack.enter_async_context(
            gateway_over("http://127.0.0.1:9/", sqlite_url, FakeTime().timing(), llmgateway_config=str(path))
        )
        native = Native(gateway, *upstreams)
        stack.push_async_callback(native.openai.close)
        yield native


async def test_a_streamed_tool_call_is_read_by_openais_client_and_booked(native: Native) -> None:
    native.claude.answer(
        anthropic_upstream.streaming(
            anthropic_upstream.start(CACHED_USAGE),
            *anthropic_upstream.text_block(0, ["Look", "ing."]),
            *anthropic_upstream.tool_block(1, "a", "get_weather", ['{"city"', ': "Brno"}']),
            *anthropic_upstream.end("tool_use", output_tokens=10),
        )
    )
    async with native.openai.chat.completions.stream(
        model="smart", messages=HELLO, tools=TOOLS, stream_options={"include_usage": True}
    ) as stream:
        completion = await stream.get_final_completion()
    message = completion.choices[0].message
    assert message.content == "Looking."
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"city": "Brno"}'
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (1100, 10)
    row = await native.gateway.row()
    assert (row.model.value, row.provider_name, row.usage_source) == ("claude-opus-5", "claude", UsageSource.REPORTED)
    assert (row.input_tokens.value, row.cached_tokens, row.output_tokens.value) == (1100, 1000, 10)
    assert row.estimated_cost is not None
    assert (row.estimated_cost.usd, row.cost_source) == (Decimal("0.003"), CostSource.COMPUTED)


async def test_an_answer_that_openais_client_has_put_together_goes_back_whole(native: Native) -> None:
    """It takes the index of a piece of reasoning for its place in the list."""
    native.claude.answer(
        anthropic_upstream.streaming(
            anthropic_upstream.start(),
            *anthropic_upstream.text_block(0, ["Look", "ing."]),
            *anthropic_upstream.thinking_block(1, ["Hm", ", so", "."], "c2ln"),
            *anthropic_upstream.block(2, {"type": "redacted_thinking", "data": "ZGF0YQ=="}),
            *anthropic_upstream.tool_block(3, "a", "get_weather", ['{"city"', ': "Brno"}']),
            *anthropic_upstream.end("tool_use"),
        ),
        ANTHROPIC.answers("Rain."),
    )
    async with native.openai.chat.completions.stream(model="smart", messages=HELLO, tools=TOOLS) as stream:
        answer = (await stream.get_final_completion()).choices[0].message
    messages: Any = [*HELLO, answer, {"role": "tool", "tool_call_id": "a", "content": "rain"}]
    await native.openai.chat.completions.create(model="smart", messages=messages, tools=TOOLS)
    assert json.loads(native.claude.bodies[-1])["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm, so.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "a", "name": "get_weather", "input": {"city": "Brno"}},
    ]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's, of its own `parsed`
@pytest.mark.parametrize("provider", ["claude", "gemini"])
async def test_answers_that_openais_client_has_parsed_can_be_sent_back(native: Native, provider: str) -> None:
    """It notes on them what it has read, and its documentation sends them back as they are."""
    kind, upstream = (ANTHROPIC, native.claude) if provider == "claude" else (GOOGLE, native.gemini)
    upstream.answer(kind.calls_tool(), kind.answers('{"words": "Rain."}'), kind.answers("Good."))
    tools = [openai.pydantic_function_tool(City, name=TOOL_CALL[1])]
    messages: Any = list(HELLO)
    for said in ({"role": "tool", "tool_call_id": TOOL_CALL[0], "content": "rain"}, {"role": "user", "content": "So?"}):
        completion = await native.openai.chat.completions.parse(
            model=f"{provider}/a-model", messages=messages, tools=tools, response_format=Weather
        )
        messages += [completion.choices[0].message, said]
    assert [message.parsed for message in messages[1::2]] == [None, Weather(words="Rain.")]
    await native.openai.chat.completions.create(model=f"{provider}/a-model", messages=messages, tools=tools)
    asked = kind.asked(upstream.bodies[-1])
    assert (asked.texts[1:], asked.tool_results) == (('{"words": "Rain."}', "So?"), ((TOOL_CALL[0], "rain"),))


async def test_thoughts_that_leave_no_room_for_an_answer_are_told_and_booked(native: Native) -> None:
    """Gemini's, with a small `max_tokens`: no part at all."""
    thought = {"promptTokenCount": 10, "thoughtsTokenCount": 90, "totalTokenCount": 100}
    last = google_upstream.response(finish_reason="MAX_TOKENS", usageMetadata=thought)
    native.gemini.answer(google_upstream.streaming(last))
    stream = await native.openai.chat.completions.create(
        model="gemini/gemini-3-pro", messages=HELLO, stream=True, max_tokens=90
    )
    assert [chunk.choices[0].finish_reason async for chunk in stream] == [None, "length"]
    row = await native.gateway.row()
    assert (row.status, row.output_tokens.value, row.reasoning_tokens) == (RequestStatus.SUCCESS, 90, 90)


async def test_images_that_gemini_makes_reach_the_client_and_can_be_sent_back(native: Native) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    parts = google_upstream.text("Here:"), image, image
    native.gemini.answer(
        says(google_upstream.response(*parts)),
        google_upstream.streaming(
            *(google_upstream.response(part, finish_reason=None) for part in parts[:2]), google_upstream.response(image)
        ),
        GOOGLE.answers("Good."),
    )
    whole = await native.openai.chat.completions.create(model="gemini/gemini-3-pro-image", messages=HELLO)
    async with native.openai.chat.completions.stream(model="gemini/gemini-3-pro-image", messages=HELLO) as stream:
        streamed = await stream.get_final_completion()
    for answer in (whole.choices[0].message, streamed.choices[0].message):
        shown: Any = answer.to_dict()["images"]
        assert [entry["image_url"]["url"] for entry in shown] == ["data:image/png;base64,iVBORw0KGgo="] * 2
        again: Any = {"model": "gemini/gemini-3-pro-image", "messages": [*HELLO, answer, *HELLO]}
        await native.openai.chat.completions.create(**again)
        sent = json.loads(native.gemini.bodies[-1])["contents"][1]
        assert sent == {"role": "model", "parts": list(parts)}


async def test_an_overloaded_provider_gives_way_to_the_other(native: Native) -> None:
    native.claude.answer(says(anthropic_upstream.error(529, "Overloaded"), status=529))
    for answering, asking in ((GOOGLE.answers("Hi!"), _complete), (GOOGLE.streams(["Hi", "!"]), _stream)):
        native.gemini.answer(answering)
        assert await asking(native, "smart") == "Hi!"
        assert native.gemini.calls == 1
    assert {row.provider_name for row in await native.gateway.rows(2)} == {"gemini"}


async def test_an_account_without_money_gives_way_to_the_other(native: Native) -> None:
    """Anthropic says so with 400."""
    native.claude.answer(says(anthropic_upstream.error(400, "Your credit balance is too low to access …"), status=400))
    assert await _complete(native, "smart") == "Hi!"
    with pytest.raises(openai.APIStatusError) as caught:
        await _complete(native, "claude/claude-haiku-5")
    assert caught.value.status_code == 402


async def test_a_key_that_google_refuses_is_not_the_clients(native: Native) -> None:
    """Google says so with 400."""
    refusal = google_upstream.error(400, "API key not valid. Please pass a valid API key.")
    for answering, stream in ((says(refusal, status=400), False), (google_upstream.streaming(refusal), True)):
        native.gemini.answer(answering)
        with pytest.raises(openai.InternalServerError, match="Your key is fine"):
            await native.openai.chat.completions.create(model="gemini/gemini-3-pro", messages=HELLO, stream=stream)


async def test_what_a_dialect_cannot_carry_is_refused_by_name(native: Native) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await _complete(native, "claude/claude-haiku-5", seed=7)
    assert caught.value.param == "seed"
    assert "provider 'claude'" in caught.value.message
    assert native.claude.calls == 0
    deployments = (await native.gateway.get("/health"))[1]["deployments"]
    assert {deployment["circuit_breaker"] for deployment in deployments.values()} == {"closed"}


async def test_a_wildcard_asks_for_the_model_that_was_named(native: Native) -> None:
    for model in ("claude-haiku-5", "claude-sonnet-5"):
        await _complete(native, f"claude/{model}")
    assert [json.loads(body)["model"] for body in native.claude.bodies] == ["claude-haiku-5", "claude-sonnet-5"]


async def test_a_cut_stream_tells_the_client_and_is_booked(native: Native) -> None:
    native.claude.answer(ANTHROPIC.breaks_off(["Hello, wo", "rld!"], cut))
    with pytest.raises(openai.APIError):
        await _stream(native, "smart")
    row = await native.gateway.row()
    assert (row.provider_name, row.usage_source, row.generation_id) == ("claude", UsageSource.ESTIMATED, "msg_1")
    assert row.output_tokens.value == 3


@pytest.mark.parametrize("then", [cut, stall])
async def test_input_that_was_told_counts_however_the_stream_ends(
    native: Native, then: Callable[[web.Request], Awaitable[None]]
) -> None:
    """Of images, tools and what comes from the cache the messages' text says nothing."""
    events = anthropic_upstream.start(CACHED_USAGE), *anthropic_upstream.text_block(0, ["Hello, world!"])
    native.claude.answer(anthropic_upstream.streaming(*events, then=then))
    stream = await native.openai.chat.completions.create(model="smart", messages=HELLO, stream=True)
    with suppress(openai.APIError):
        async for chunk in stream:
            if chunk.choices[0].delta.content == "Hello, world!" and then is stall:
                break
    await stream.close()
    row = await native.gateway.row()
    assert (row.input_tokens.value, row.cached_tokens, row.output_tokens.value) == (1100, 1000, 3)
    assert (row.usage_source, row.cost_source) == (UsageSource.ESTIMATED, CostSource.COMPUTED)
    assert row.estimated_cost == CostAmount(Decimal("0.0023"))


@pytest.mark.parametrize("provider", ["claude", "gemini"])
async def test_a_stream_whose_usage_makes_no_sense_is_whole_and_booked(native: Native, provider: str) -> None:
    """Each was an error in the middle of the answer, a row that was lost, and money that stayed set aside."""
    native.claude.answer(
        anthropic_upstream.streaming(
            anthropic_upstream.start(),
            *anthropic_upstream.text_block(0, ["Hello, world!"]),
            *anthropic_upstream.end(output_tokens=-5),
        )
        if provider == "claude"
        else says(anthropic_upstream.error(529, "Overloaded"), status=529)
    )
    usage = {"promptTokenCount": 5, "candidatesTokenCount": -3}
    last = google_upstream.response(google_upstream.text("Hello, world!"), usageMetadata=usage)
    native.gemini.answer(google_upstream.streaming(last))
    status, _, body = await native.gateway.raw_chat({"model": "smart", "messages": HELLO, "stream": True})
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    row = await native.gateway.row()
    assert (row.provider_name, row.status, row.usage_source) == (provider, RequestStatus.SUCCESS, UsageSource.ESTIMATED)
    assert row.output_tokens.value == 3


async def test_a_client_that_hangs_up_ends_the_upstreams_call(native: Native) -> None:
    native.claude.answer(ANTHROPIC.breaks_off(["Hello"], stall))
    stream = await native.openai.chat.completions.create(model="smart", messages=HELLO, stream=True)
    await anext(stream)
    await stream.close()
    row = await native.gateway.row()
    assert row.usage_source == UsageSource.ESTIMATED
    assert native.claude.cancelled == 1


async def _complete(native: Native, model: str, **members: Any) -> str:
    completion = await native.openai.chat.completions.create(model=model, messages=HELLO, **members)
    return completion.choices[0].message.content or ""


async def _stream(native: Native, model: str) -> str:
    stream = await native.openai.chat.completions.create(model=model, messages=HELLO, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_a_kind_of_image_that_cannot_be_carried_is_refused_by_name(native: Native) -> None:
    """It was taken for a defect of the gateway."""
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zy8+"}}
    for model in ("claude/claude-haiku-5", "gemini/gemini-3-pro"):
        with pytest.raises(openai.BadRequestError) as caught:
            await native.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": [image]}])
        assert caught.value.param == "messages[0].content[0].image_url.url"
