"""The demo upstream, over real HTTP: it must be indistinguishable from OpenRouter to a client."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from proxy.infrastructure.demo import SPECIAL_MODELS, demo_app

CHAT = "/api/v1/chat/completions"
GLM = "z-ai/glm-4.6"


@pytest.fixture
async def client(aiohttp_client: AiohttpClient) -> TestClient[Any, Any]:
    return await aiohttp_client(demo_app(chunk_pause_seconds=0, slow_seconds=0))


def asking(text: object = "Hello there", **members: Any) -> dict[str, Any]:
    return {"model": GLM, "messages": [{"role": "user", "content": text}], **members}


async def answer(client: TestClient[Any, Any], request: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(CHAT, json=request)
    assert response.status == 200, await response.text()
    document: dict[str, Any] = await response.json()
    return document


async def content(client: TestClient[Any, Any], request: dict[str, Any]) -> str:
    return str((await answer(client, request))["choices"][0]["message"]["content"])


async def chunks(client: TestClient[Any, Any], request: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post(CHAT, json={**request, "stream": True})
    events = (await response.text()).split("\n\n")
    assert events[0] == ": OPENROUTER PROCESSING"
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[1:-2]]


def deltas(documents: Sequence[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    choices = [choice for document in documents for choice in document["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index]


async def test_an_answer_has_openrouters_shape(client: TestClient[Any, Any]) -> None:
    response = await client.post(CHAT, json=asking())
    document = await response.json()
    assert document["id"].startswith("gen-")
    assert response.headers["X-Generation-Id"] == document["id"]
    assert (document["object"], document["provider"], document["model"]) == ("chat.completion", "Demo", GLM)
    assert document["system_fingerprint"] is None
    [choice] = document["choices"]
    assert (choice["index"], choice["finish_reason"], choice["native_finish_reason"]) == (0, "stop", "stop")
    assert choice["message"]["role"] == "assistant"


async def test_an_answer_says_that_it_is_the_demos_and_echoes_the_user(client: TestClient[Any, Any]) -> None:
    text = await content(client, asking("Wie geht's, 世界?"))
    assert "demo upstream" in text
    assert 'You said: "Wie geht\'s, 世界?"' in text
    assert text == await content(client, asking("Wie geht's, 世界?"))


async def test_the_last_user_message_is_echoed_from_its_text_parts(client: TestClient[Any, Any]) -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "it"},
    ]
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": parts}, {"role": "system"}]
    assert '"What is it"' in await content(client, asking(messages=messages))


async def test_a_long_message_is_echoed_in_short(client: TestClient[Any, Any]) -> None:
    text = await content(client, asking("x" * 5000))
    assert "x…" in text
    assert len(text) < 500


async def test_usage_counts_four_characters_to_a_token_and_charges_the_listed_price(
    client: TestClient[Any, Any],
) -> None:
    document = await answer(client, asking("x" * 4003))
    usage = document["usage"]
    written = len(document["choices"][0]["message"]["content"]) // 4
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1000, written)
    assert usage["total_tokens"] == 1000 + written
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0
    assert usage["is_byok"] is False


@pytest.mark.parametrize("model", [GLM, "anthropic/claude-sonnet-4.5", "somebody/elses-model", "demo/slow"])
async def test_cost_is_an_exact_plain_decimal_of_the_listed_price(client: TestClient[Any, Any], model: str) -> None:
    raw = await (await client.post(CHAT, json=asking("?", model=model))).text()
    usage = json.loads(raw, parse_float=Decimal)["usage"]
    listed = {entry["id"]: entry["pricing"] for entry in (await models(client))}
    pricing = listed.get(model, {"prompt": "0.0000001", "completion": "0.0000002"})
    completion_cost = usage["completion_tokens"] * Decimal(pricing["completion"])
    assert usage["prompt_tokens"] == 1
    assert usage["cost"] == Decimal(pricing["prompt"]) + completion_cost > 0
    assert usage["cost_details"]["upstream_inference_completions_cost"] == completion_cost
    assert re.search(r'"cost":0\.\d+[,}]', raw), "neither an exponent nor a string"


async def models(client: TestClient[Any, Any]) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = (await (await client.get("/api/v1/models")).json())["data"]
    return data


async def test_models_lists_prices_as_text_and_every_special_model(client: TestClient[Any, Any]) -> None:
    listed = {model["id"]: model for model in await models(client)}
    glm, kimi = listed[GLM], listed["moonshotai/Kimi-K2-Instruct-0905"]
    assert (glm["pricing"]["prompt"], glm["pricing"]["completion"]) == ("0.0000000001", "0.0000000002")
    assert kimi["pricing"]["completion"] == "0.000000001"
    assert (glm["context_length"], kimi["context_length"]) == (128_000, 200_000)
    assert {"canonical_slug", "name", "created", "architecture", "top_provider", "supported_parameters"} <= glm.keys()
    assert "demo/error-429" in listed
    assert {name for name in SPECIAL_MODELS if "<" not in name} <= listed.keys()


async def test_key_and_generation_account_for_what_was_answered(client: TestClient[Any, Any]) -> None:
    first, second = await answer(client, asking()), (await chunks(client, asking("And again")))[-1]
    key = json.loads(await (await client.get("/api/v1/key")).text(), parse_float=Decimal)["data"]
    costs = [Decimal(f"{document['usage']['cost']:.13f}") for document in (first, second)]
    assert key["usage"] == sum(costs)
    assert (key["limit"], key["is_free_tier"]) == (None, False)

    found = await client.get("/api/v1/generation", params={"id": second["id"]})
    generation = (await found.json())["data"]
    assert generation["total_cost"] == generation["usage"] == second["usage"]["cost"]
    assert generation["tokens_prompt"] == second["usage"]["prompt_tokens"]
    assert generation["native_tokens_completion"] == second["usage"]["completion_tokens"]
    assert (generation["model"], generation["provider_name"], generation["streamed"]) == (GLM, "Demo", True)
    assert (generation["finish_reason"], generation["cancelled"]) == ("stop", False)


async def test_the_last_thousand_generations_are_remembered(client: TestClient[Any, Any]) -> None:
    ids = [(await answer(client, asking(max_tokens=1)))["id"] for _ in range(1001)]
    statuses = [
        (await client.get("/api/v1/generation", params={"id": one})).status for one in (ids[0], ids[1], ids[-1])
    ]
    assert len(set(ids)) == 1001
    assert statuses == [404, 200, 200]


async def test_a_stream_is_a_role_words_an_end_and_usage_without_asking(client: TestClient[Any, Any]) -> None:
    documents = await chunks(client, asking())
    *spoken, last = documents
    pieces = deltas(spoken)
    assert pieces[0] == {"role": "assistant", "content": ""}
    assert "".join(piece["content"] for piece in pieces) == await content(client, asking())
    assert all(len(piece["content"].split()) <= 1 for piece in pieces)
    reasons = [document["choices"][0]["finish_reason"] for document in spoken]
    assert reasons == [None] * (len(spoken) - 1) + ["stop"]
    assert last["choices"] == []
    assert last["usage"]["cost"] > 0
    assert not any("usage" in document for document in spoken)
    assert {document["id"] for document in documents} == {last["id"]}
    assert {document["object"] for document in documents} == {"chat.completion.chunk"}


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
async def test_the_token_limit_cuts_the_answer(client: TestClient[Any, Any], member: str) -> None:
    whole, short = await content(client, asking()), await answer(client, asking(**{member: 3}))
    [choice] = short["choices"]
    assert choice["message"]["content"] == whole[:12]
    assert (choice["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 3)


async def test_a_token_limit_that_is_just_enough_cuts_nothing(client: TestClient[Any, Any]) -> None:
    whole = await answer(client, asking())
    same = await answer(client, asking(max_tokens=whole["usage"]["completion_tokens"]))
    assert same["choices"] == whole["choices"]


@pytest.mark.parametrize("limit", [0, -1, True, "5", 1.5, None])
async def test_a_token_limit_that_is_no_positive_integer_is_ignored(
    client: TestClient[Any, Any], limit: object
) -> None:
    assert await content(client, asking(max_tokens=limit)) == await content(client, asking())


@pytest.mark.parametrize("stop", [None, "", [], ["", 5, None], {"a": 1}])
async def test_a_stop_without_text_is_ignored(client: TestClient[Any, Any], stop: object) -> None:
    assert await content(client, asking(stop=stop)) == await content(client, asking())


@pytest.mark.parametrize("stop", [" upstream", ["never", " upstream", "gateway"]])
async def test_stop_ends_the_answer_before_itself(client: TestClient[Any, Any], stop: str | list[str]) -> None:
    document = await answer(client, asking(stop=stop))
    assert document["choices"][0]["message"]["content"] == "This is the demo"
    assert document["choices"][0]["finish_reason"] == "stop"


async def test_n_gives_that_many_choices_and_charges_for_all(client: TestClient[Any, Any]) -> None:
    one, three = await answer(client, asking()), await answer(client, asking(n=3))
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]
    streamed = await chunks(client, asking(n=3))
    spoken = ["".join(delta["content"] for delta in deltas(streamed, index)) for index in range(3)]
    assert spoken == [one["choices"][0]["message"]["content"]] * 3
