"""What becomes of OpenAI requests on their way to Anthropic."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from proxy.domain.errors import InvalidRequest
from tests.providers.anthropic_upstream import ANTHROPIC, message
from tests.providers.conftest import HELLO, Connect, Provider
from tests.providers.kinds import API_KEY

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "default": None}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get-weather", "description": "The weather", "parameters": SCHEMA}}
OTHER_TOOL = {"type": "function", "function": {"name": "get_time", "strict": True}}
CACHED = {"cache_control": {"type": "ephemeral"}}


async def sent(provider: Provider, **members: Any) -> dict[str, Any]:
    """What the upstream got for a request."""
    await provider.complete({**HELLO, **members})
    body: dict[str, Any] = json.loads(provider.upstream.bodies[-1])
    return body


async def refused(provider: Provider, **members: Any) -> InvalidRequest:
    """The refusal of a request. Nobody was asked."""
    with pytest.raises(InvalidRequest) as caught:
        await provider.complete({**HELLO, **members})
    assert provider.upstream.calls == 0
    return caught.value


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


async def test_a_plain_request_is_the_shortest_that_says_the_same(anthropic: Provider) -> None:
    assert await sent(anthropic) == {
        "model": "asked-model",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    assert anthropic.upstream.paths == ["/v1/messages"]


async def test_a_stream_is_asked_for(anthropic: Provider) -> None:
    anthropic.upstream.answer(ANTHROPIC.streams(["a"]))
    await anthropic.stream()
    assert json.loads(anthropic.upstream.bodies[0])["stream"] is True


async def test_a_conversation_with_tools_images_and_instructions(anthropic: Provider) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "get-weather", "arguments": '{"city":null,"n":1e2}'}},
        {"id": "b", "type": "function", "function": {"name": "get_time", "arguments": ""}},
    ]
    body = await sent(
        anthropic,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind.", **CACHED}]},
            *user(
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a%20b.png?x=1"}, **CACHED},
                {"type": "text", "text": "and say."},
            ),
            {"role": "assistant", "content": "Looking.", "refusal": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "no", **CACHED}]},
            {"role": "user", "content": "So?"},
        ],
        tools=[TOOL, {**OTHER_TOOL, **CACHED}],
    )
    assert body["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", **CACHED}]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a%20b.png?x=1"}, **CACHED},
                {"type": "text", "text": "and say."},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "a", "name": "get-weather", "input": {"city": None, "n": 100.0}},
                {"type": "tool_use", "id": "b", "name": "get_time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "b", "content": "no", **CACHED},
                {"type": "text", "text": "So?"},
            ],
        },
    ]
    assert body["tools"] == [
        {"name": "get-weather", "description": "The weather", "input_schema": SCHEMA},
        {"name": "get_time", "input_schema": {"type": "object", "properties": {}}, "strict": True, **CACHED},
    ]


async def test_an_answer_with_reasoning_can_be_sent_back_whole(anthropic: Provider) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    hidden = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    tool_use = {"type": "tool_use", "id": "a", "name": "get-weather", "input": {"city": "Brno"}}
    said: list[dict[str, Any]] = [thinking, hidden, {"type": "text", "text": "Looking."}, tool_use]
    anthropic.upstream.answer(message(*said, stop_reason="tool_use"))
    first, _ = await anthropic.complete({**HELLO, "tools": [TOOL]})
    answer = json.loads(first)["choices"][0]["message"]
    assert answer["reasoning"] == "Hm."
    result = {"role": "tool", "tool_call_id": "a", "content": "rain"}
    body = await sent(anthropic, messages=[*HELLO["messages"], answer, result], tools=[TOOL])
    assert body["messages"][1] == {"role": "assistant", "content": said}


async def test_what_says_nothing_is_left_out(anthropic: Provider) -> None:
    """As OpenAI takes it, and the API does not: answers that were stopped before their first word are in histories."""
    body = await sent(
        anthropic,
        messages=[
            {"role": "system", "content": ""},
            *user({"type": "text", "text": ""}, {"type": "text", "text": "a"}),
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": [{"type": "text", "text": "", **CACHED}]},
            {"role": "user", "content": ""},
        ],
    )
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert (body["messages"], "system" in body) == ([{"role": "user", "content": texts}], False)


async def test_calls_that_another_provider_made_keep_their_results(anthropic: Provider) -> None:
    """The API takes ids of `[a-zA-Z0-9_-]+` alone."""
    ids = ["functions.get_time:0", "functions.get_time:1", "call_a-1"]
    calls = [{"id": call_id, "type": "function", "function": {"name": "get_time"}} for call_id in ids]
    results = [{"role": "tool", "tool_call_id": call_id, "content": call_id} for call_id in ids]
    body = await sent(anthropic, messages=[*HELLO["messages"], {"role": "assistant", "tool_calls": calls}, *results])
    *_, called, told = (message["content"] for message in body["messages"])
    sent_ids = [block["id"] for block in called]
    assert [(block["tool_use_id"], block["content"]) for block in told] == list(zip(sent_ids, ids, strict=True))
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", call_id) for call_id in sent_ids)
    assert (len(set(sent_ids)), sent_ids[2]) == (3, "call_a-1")


async def test_parameters_have_other_names(anthropic: Provider) -> None:
    body = await sent(
        anthropic,
        max_tokens=None,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=1,
        top_k=3,
        stop="END",
        user="u-1",
        cache_control={"type": "ephemeral"},
    )
    assert {name: value for name, value in body.items() if name not in ("messages", "model")} == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 3,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
        "cache_control": {"type": "ephemeral"},
    }


async def test_an_answers_length_has_a_limit_in_any_case(anthropic: Provider) -> None:
    assert (await sent(anthropic, max_tokens=None))["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, {"type": "tool", "name": "get_time"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
async def test_the_choice_of_tools(anthropic: Provider, asked: dict[str, Any], expected: Any) -> None:
    body = await sent(anthropic, tools=[TOOL, OTHER_TOOL], **asked)
    assert body.get("tool_choice") == expected


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        ("claude-opus-4-6", {"reasoning_effort": "high"}, ({"type": "adaptive"}, {"effort": "high"}, 20480)),
        ("claude-opus-5", {"reasoning_effort": "minimal"}, ({"type": "adaptive"}, {"effort": "low"}, 5120)),
        (
            "claude-sonnet-4-5-20250929",
            {"reasoning_effort": "medium"},
            ({"type": "enabled", "budget_tokens": 4096}, None, 8192),
        ),
        (
            "claude-opus-4-20250514",
            {"reasoning_effort": "high", "max_tokens": 5000},
            ({"type": "enabled", "budget_tokens": 4999}, None, 5000),
        ),
        (
            "anthropic/claude-3-7-sonnet-latest",
            {"reasoning_effort": "low"},
            ({"type": "enabled", "budget_tokens": 1024}, None, 5120),
        ),
        ("claude-opus-5", {"reasoning_effort": "none"}, ({"type": "disabled"}, None, 4096)),
        (
            "claude-opus-4",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            ({"type": "enabled", "budget_tokens": 2000}, None, 6096),
        ),
    ],
)
async def test_effort_is_thinking_in_the_models_own_terms(
    anthropic: Provider, model: str, asked: dict[str, Any], expected: Any
) -> None:
    body = await sent(anthropic, **{"model": model, "max_tokens": None, **asked})
    assert (body["thinking"], body.get("output_config"), body["max_tokens"]) == expected


@pytest.mark.parametrize(
    ("members", "max_tokens"),
    [
        ({"reasoning_effort": "low"}, 4096 + 1024),
        ({"reasoning_effort": "high"}, 4096 + 16384),
        ({"reasoning_effort": "none"}, 4096),
        ({"reasoning_effort": "high", "max_completion_tokens": 500}, 500),
        ({"thinking": {"type": "adaptive"}}, 4096 + 16384),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, 4096),
        ({"thinking": {"type": "enabled", "budget_tokens": None}}, 4096),
    ],
)
async def test_thoughts_have_room_beside_the_answer(
    anthropic: Provider, members: dict[str, Any], max_tokens: int
) -> None:
    """The API counts both; models that think by themselves would use up what is meant for the answer."""
    assert (await sent(anthropic, model="claude-opus-5", max_tokens=None, **members))["max_tokens"] == max_tokens


async def test_a_schema_for_the_answer(anthropic: Provider) -> None:
    schema = {"name": "weather", "schema": SCHEMA, "strict": True, "description": "A place"}
    wanted = {"type": "json_schema", "json_schema": schema}
    body = await sent(anthropic, response_format=wanted, reasoning_effort="low", model="claude-opus-5")
    expected = {"type": "json_schema", "schema": {"description": "A place", **SCHEMA}}
    assert body["output_config"] == {"effort": "low", "format": expected}


async def test_the_default_service_tier_is_their_standard_one(anthropic: Provider) -> None:
    assert (await sent(anthropic, service_tier="default"))["service_tier"] == "standard_only"


@pytest.mark.parametrize(
    "members",
    [
        {"n": 1, "logprobs": False, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "store": False},
        {"seed": None, "audio": None, "tools": [], "stop": None, "modalities": ["text"], "service_tier": "auto"},
        {"stream_options": {"include_usage": True}, "prompt_cache_key": "k", "metadata": {"a": "b"}},
        {"response_format": {"type": "text"}, "session_id": "s", "models": ["a", "b"], "stop": []},
    ],
)
async def test_what_asks_for_nothing_is_no_reason_to_refuse(anthropic: Provider, members: dict[str, Any]) -> None:
    assert (await sent(anthropic, **members)).keys() == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"seed": 1}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"store": True}, "store"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "model": "claude-opus-4", "max_tokens": 1000}, "max_tokens"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": "a", "name": "Eva"}]}, "messages[0].name"),
        ({"messages": [{"role": "function", "content": "a", "name": "f"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "system", "content": "Be polite."}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": user({"type": "input_audio", "input_audio": {}})}, "messages[0].content[0].type"),
        ({"messages": user({"type": "text", "text": "a", "odd": 1})}, "messages[0].content[0].odd"),
        (
            {"messages": user({"type": "image_url", "image_url": {"url": "ftp://x/y.png"}})},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": user({"type": "image_url", "image_url": {"url": "data:image/png;base64,###"}})},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": user({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}})},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [*HELLO["messages"], {"role": "system", "content": "Now be rude."}]},
            "messages[1].role",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a", "audio": {"id": "x"}}]},
            "messages[0].audio",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "reasoning_details": [{"type": "reasoning.text", "text": "unsigned"}]}
                ]
            },
            "messages[0].reasoning_details[0]",
        ),
        ({"messages": [{"role": "assistant", "content": "a", "reasoning": "Hm."}]}, "messages[0].reasoning"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "images": [
                            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}, "index": 0}
                        ],
                    }
                ]
            },
            "messages[0].images[0]",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
    ],
)
async def test_what_cannot_be_carried_is_refused_by_name(
    anthropic: Provider, members: dict[str, Any], param: str
) -> None:
    error = await refused(anthropic, **members)
    assert error.param == param
    assert f"'{param}'" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"model":"m","messages":[{"role":"user","content":"\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"temperature":1e400}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":' + b"[" * 80 + b"]" * 80 + b"}",
        (
            rb'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":'
            rb'"{\"a\":1e400}"}}]}]}'
        ),
    ],
    ids=["lone surrogate", "infinity", "depth", "infinity in arguments"],
)
async def test_json_that_could_not_be_written_again_is_refused(anthropic: Provider, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await anthropic.complete(body)
    assert anthropic.upstream.calls == 0


async def test_deep_schemas_pass(anthropic: Provider) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(28):
        schema = {"type": "object", "properties": {"inner": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert (await sent(anthropic, tools=[tool]))["tools"][0]["input_schema"] == schema


@pytest.mark.parametrize(
    ("named", "known"), [("image/jpg", "image/jpeg"), ("IMAGE/JPEG", "image/jpeg"), ("image/webp", "image/webp")]
)
async def test_images_have_the_types_that_the_api_knows(anthropic: Provider, named: str, known: str) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:{named};base64,{PNG}"}}
    (block,) = (await sent(anthropic, messages=user(image)))["messages"][0]["content"]
    assert block["source"] == {"type": "base64", "media_type": known, "data": PNG}


async def test_a_large_image_passes(anthropic: Provider) -> None:
    data = base64.b64encode(bytes(3 * 1024 * 1024)).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
    body = await sent(anthropic, messages=user(image))
    assert body["messages"][0]["content"][0]["source"]["data"] == data


async def test_a_refusal_is_no_sign_of_bad_health(anthropic: Provider) -> None:
    for _ in range(6):
        with pytest.raises(InvalidRequest):
            await anthropic.complete({**HELLO, "seed": 1})
    assert anthropic.breaker.state == "closed"
    await anthropic.complete()


async def test_nothing_is_sent_but_what_is_meant_to_be(connect_kind: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the SDK's figures of the machine, nor what the environment holds for other programs."""
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Custom: 1\nAuthorization: Bearer other")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    provider = await connect_kind(ANTHROPIC, headers={"anthropic-beta": "context-1m"})
    await provider.complete()
    got = {name.lower(): value for name, value in provider.upstream.headers[0].items()}
    for own in ("host", "content-length", "accept"):
        got.pop(own)
    assert got == {
        "anthropic-beta": "context-1m",
        "anthropic-version": "2023-06-01",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "llmgateway",
        "x-api-key": API_KEY,
    }


async def test_another_providers_signature_cannot_be_carried(anthropic: Provider) -> None:
    signed = {"google": {"thought_signature": "c2ln"}}
    call = {"id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": signed}
    error = await refused(anthropic, messages=[{"role": "assistant", "tool_calls": [call]}])
    assert error.param == "messages[0].tool_calls[0].extra_content"
