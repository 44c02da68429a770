"""What becomes of OpenAI requests on their way to Google. Its API takes names in either case; the SDK sends both."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proxy.domain.errors import InvalidRequest
from tests.harness import says
from tests.providers.conftest import HELLO, Connect, Provider
from tests.providers.google_upstream import GOOGLE, function_call, response
from tests.providers.kinds import API_KEY

PNG = "iVBORw0KGgo="
SCHEMA = {
    "type": "object",
    "properties": {"city": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
    "additionalProperties": False,
    "$defs": {"a-b": {"type": ["string", "null"]}},
}
TOOL = {"type": "function", "function": {"name": "my__get-weather", "description": "The weather", "parameters": SCHEMA}}
STRICT_TOOL = {"type": "function", "function": {"name": "get_time", "strict": True}}
NO_SIGNATURE = base64.b64encode(b"skip_thought_signature_validator").decode()
CACHED = {"cache_control": {"type": "ephemeral"}}


async def sent(provider: Provider, **members: Any) -> dict[str, Any]:
    """What the upstream got for a request."""
    await provider.complete({**HELLO, **members})
    body: dict[str, Any] = json.loads(provider.upstream.bodies[-1])
    return body


def user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


async def test_a_plain_request_is_the_shortest_that_says_the_same(google: Provider) -> None:
    assert await sent(google) == {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"maxOutputTokens": 100},
    }
    assert google.upstream.paths == ["/v1beta/models/asked-model:generateContent"]


async def test_a_stream_is_asked_for_and_each_call_has_its_own_model(google: Provider) -> None:
    google.upstream.answer(GOOGLE.streams(["a"]))
    for model in ("gemini-a", "gemini-b", "gemini-a"):
        await google.stream({**HELLO, "model": model})
    assert google.upstream.paths == [
        f"/v1beta/models/gemini-{name}:streamGenerateContent?alt=sse" for name in ("a", "b", "a")
    ]


async def test_a_conversation_with_tools_images_and_instructions(google: Provider) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "my__get-weather", "arguments": '{"city":null}'}},
        {"id": "b", "type": "function", "function": {"name": "get_time", "arguments": ""}},
    ]
    body = await sent(
        google,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be."}]},
            *user(
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
            ),
            {"role": "assistant", "content": "Looking.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "rain"},
            {"role": "tool", "tool_call_id": "b", "content": "no"},
        ],
        tools=[TOOL, STRICT_TOOL],
    )
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}, {"text": "Be kind."}, {"text": "Be."}]
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "See"}, {"inlineData": {"data": PNG, "mimeType": "image/png"}}]},
        {
            "role": "model",
            "parts": [
                {"text": "Looking."},
                {"functionCall": {"id": "a", "name": "my__get-weather", "args": {"city": None}}},
                {"functionCall": {"id": "b", "name": "get_time", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "my__get-weather", "response": {"result": "rain"}}},
                {"functionResponse": {"id": "b", "name": "get_time", "response": {"result": "no"}}},
            ],
        },
    ]
    empty = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "my__get-weather", "description": "The weather", "parameters_json_schema": SCHEMA},
                {"name": "get_time", "parameters_json_schema": empty},
            ]
        }
    ]


async def test_what_says_nothing_is_left_out(google: Provider) -> None:
    body = await sent(
        google,
        messages=[
            {"role": "system", "content": ""},
            *user({"type": "text", "text": ""}, {"type": "text", "text": "a"}),
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "b"},
        ],
    )
    assert body["contents"] == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]
    assert "systemInstruction" not in body


async def test_the_signature_of_a_thought_goes_back_with_its_call(google: Provider) -> None:
    signed = function_call("a", "my__get-weather", {"city": "Brno"}, thoughtSignature="c2ln")
    google.upstream.answer(says(response(signed)))
    first, _ = await google.complete({**HELLO, "tools": [TOOL]})
    answer = json.loads(first)["choices"][0]["message"]
    assert answer["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    result = {"role": "tool", "tool_call_id": "a", "content": "rain"}
    body = await sent(google, messages=[*HELLO["messages"], answer, result], tools=[TOOL])
    assert body["contents"][1]["parts"] == [signed]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-3-pro", [NO_SIGNATURE, None]),
        ("gemini-pro-latest", [NO_SIGNATURE, None]),
        ("gemini-flash-latest", [NO_SIGNATURE, None]),
        ("gemini-flash-lite-latest", [NO_SIGNATURE, None]),
        ("gemini-2.5-pro", [None, None]),
        ("gemini-2.5-flash-latest", [None, None]),
    ],
)
async def test_calls_whose_signature_is_not_to_be_had_say_so(google: Provider, model: str, expected: list[Any]) -> None:
    """Most clients keep what OpenAI's calls have, and other models sign nothing; without the words it would be 400."""
    call = {"type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    calls = {"role": "assistant", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]}
    results = [{"role": "tool", "tool_call_id": call_id, "content": "noon"} for call_id in "ab"]
    body = await sent(google, model=model, messages=[*HELLO["messages"], calls, *results])
    assert [part.get("thoughtSignature") for part in body["contents"][1]["parts"]] == expected
    signed = {"id": "b", **call, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    calls = {**calls, "tool_calls": [{"id": "a", **call}, signed]}
    body = await sent(google, model=model, messages=[*HELLO["messages"], calls, *results])
    assert [part.get("thoughtSignature") for part in body["contents"][1]["parts"]] == [None, "c2ln"]


async def test_parameters_have_other_names(google: Provider) -> None:
    body = await sent(
        google,
        max_tokens=None,
        max_completion_tokens=7,
        temperature=1.5,
        top_p=1,
        top_k=3,
        seed=5,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        stop=["a", "b"],
        user="u-1",
    )
    assert body["generationConfig"] == {
        "maxOutputTokens": 7,
        "temperature": 1.5,
        "topP": 1.0,
        "topK": 3.0,
        "seed": 5,
        "presencePenalty": 0.5,
        "frequencyPenalty": -0.5,
        "stopSequences": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("wished", "expected"),
    [("auto", None), ("default", None), (None, None), ("flex", "flex"), ("priority", "priority"), ("fast", "priority")],
)
async def test_the_service_tier_is_asked_for(google: Provider, wished: str | None, expected: str | None) -> None:
    assert (await sent(google, service_tier=wished)).get("serviceTier") == expected


@pytest.mark.parametrize(
    ("tools", "asked", "expected"),
    [
        ([TOOL], {}, {"mode": "AUTO"}),
        ([TOOL, STRICT_TOOL], {}, {"mode": "VALIDATED"}),
        ([TOOL], {"tool_choice": "none"}, {"mode": "NONE"}),
        ([TOOL], {"tool_choice": "required"}, {"mode": "ANY"}),
        (
            [TOOL, STRICT_TOOL],
            {"tool_choice": {"type": "function", "function": {"name": "get_time"}}},
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
    ],
)
async def test_the_choice_of_tools(
    google: Provider, tools: list[dict[str, Any]], asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = await sent(google, tools=tools, **asked)
    assert body["toolConfig"] == {"functionCallingConfig": expected}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gemini-2.5-flash", "none", {"thinking_budget": 0}),
        ("gemini-2.5-pro", "high", {"thinking_budget": 24576}),
        ("gemini-3-pro-preview", "low", {"thinking_level": "LOW"}),
        ("gemini-4-flash", "minimal", {"thinking_level": "MINIMAL"}),
    ],
)
async def test_effort_is_thinking_in_the_models_own_terms(
    google: Provider, model: str, effort: str, expected: dict[str, Any]
) -> None:
    body = await sent(google, model=model, reasoning_effort=effort)
    assert body["generationConfig"]["thinkingConfig"] == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
    ],
)
async def test_a_format_for_the_answer(google: Provider, wanted: Any, expected: dict[str, Any]) -> None:
    body = await sent(google, response_format=wanted, max_tokens=None)
    assert body["generationConfig"] == expected


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"model": "gemini-3-pro:countTokens#"}, "model"),
        ({"model": "models/../files/a"}, "model"),
        ({"model": "gemini-3-pro?key=other"}, "model"),
        ({"model": "tunedModels/a:transferOwnership%23"}, "model"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"cache_control": {"type": "ephemeral"}}, "cache_control"),
        ({"temperature": 2.5}, "temperature"),
        ({"stop": list("abcdef")}, "stop"),
        ({"reasoning_effort": "none", "model": "gemini-3-pro"}, "reasoning_effort"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tools": [{**TOOL, **CACHED}]}, "tools[0].cache_control"),
        ({"messages": user({"type": "text", "text": "a", **CACHED})}, "messages[0].content[0].cache_control"),
        (
            {"messages": user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [*HELLO["messages"], {"role": "system", "content": "Now be rude."}]}, "messages[1].role"),
        ({"messages": [{"role": "system", "content": "Be polite."}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": "a",
                        "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
                    }
                ]
            },
            "messages[0].reasoning_details[0]",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "z", "content": "a"}]}, "messages[0].tool_call_id"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "a",
                                "function": {"name": "f", "arguments": "{}"},
                                "extra_content": {"google": {"thought_signature": "#"}},
                            }
                        ],
                    }
                ]
            },
            "messages[0].tool_calls[0].extra_content.google.thought_signature",
        ),
    ],
)
async def test_what_cannot_be_carried_is_refused_by_name(google: Provider, members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await google.complete({**HELLO, **members})
    assert caught.value.param == param
    assert f"'{param}'" in str(caught.value)
    assert google.upstream.calls == 0


async def test_a_refusal_in_a_stream_is_the_same(google: Provider) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await google.stream({**HELLO, "messages": [*HELLO["messages"], {"role": "system", "content": "a"}]})
    assert caught.value.param == "messages[1].role"


async def test_deep_schemas_pass(google: Provider) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(28):
        schema = {"type": "object", "properties": {"inner": schema}}
    body = await sent(google, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
    assert body["tools"][0]["functionDeclarations"][0]["parameters_json_schema"] == schema


async def test_nothing_is_sent_but_what_is_meant_to_be(connect_kind: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the SDK's figures of the machine, nor what the environment holds for other programs."""
    monkeypatch.setenv("GOOGLE_API_KEY", "of-the-environment")
    monkeypatch.setenv("GEMINI_API_KEY", "of-the-environment")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_AI_GEMINI_MODEL_ID", "of-the-environment")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    provider = await connect_kind(GOOGLE)
    await provider.complete()
    got = {name.lower(): value for name, value in provider.upstream.headers[0].items()}
    for own in ("host", "content-length", "accept"):
        got.pop(own)
    assert got == {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "llmgateway",
        "x-goog-api-key": API_KEY,
    }
