"""Answers with status 200 of which a choice tells that the provider behind the upstream failed before its end.

OpenRouter's documentation: `choices[].error` is `{code, message}`, beside `finish_reason: "error"`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.domain.request_log import CostSource, RequestStatus, UsageSource
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import COMPLETION, HELLO, USAGE, TestGateway, Upstream, chunk, ending, says, streams

STREAMED = {**HELLO, "stream": True}
GONE = {"code": 502, "message": "Provider disconnected"}
DONE = b"data: [DONE]\n\n"
FREE = {"prompt_tokens": 10, "completion_tokens": 0, "total_tokens": 10, "cost": 0}


def whole(content: str | None, finish_reason: str | None = "error", **members: Any) -> dict[str, Any]:
    """A completion with one choice, whose other members are given."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
    return {**COMPLETION, "choices": [{**choice, **members}]}


def last_piece(finish_reason: str | None = "error", content: str = "", **members: Any) -> bytes:
    """The event of a stream with which its choice breaks off."""
    return chunk(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason, **members}])


BROKEN = [
    pytest.param("error", {"error": GONE}, id="as documented"),
    pytest.param(None, {"error": GONE}, id="without a finish reason"),
    pytest.param("error", {}, id="without an error"),
]


@pytest.mark.parametrize(("finish_reason", "members"), BROKEN)
async def test_a_whole_answer_that_broke_off_is_handed_on_and_booked_as_one(
    gateway: TestGateway, upstream: Upstream, finish_reason: str | None, members: dict[str, Any]
) -> None:
    body = json.dumps(whole("Hi th", finish_reason, **members)).encode()
    upstream.answer(says(body))
    status, _, raw = await gateway.raw_chat(HELLO)
    assert (status, raw, upstream.calls) == (200, body, 1)
    row = await gateway.row()
    assert (row.status, row.error_type, row.http_status) == (RequestStatus.UPSTREAM_ERROR, "error_in_answer", 200)
    assert (row.output_tokens.value, row.cost_source) == (5, CostSource.REPORTED)


async def test_what_was_generated_before_it_broke_off_is_estimated_if_no_usage_is_told(
    gateway: TestGateway, upstream: Upstream
) -> None:
    upstream.answer(says({**whole("x" * 400, error=GONE), "usage": None}))
    await gateway.raw_chat(HELLO)
    row = await gateway.row()
    assert (row.status, row.usage_source) == (RequestStatus.UPSTREAM_ERROR, UsageSource.ESTIMATED)
    assert row.output_tokens.value == 100


@pytest.mark.parametrize(("finish_reason", "members"), BROKEN)
@pytest.mark.parametrize("done", [b"", DONE], ids=["cut", "to its end"])
async def test_a_stream_that_broke_off_is_handed_on_and_booked_as_one(
    gateway: TestGateway, upstream: Upstream, done: bytes, finish_reason: str | None, members: dict[str, Any]
) -> None:
    """Who cuts it there gets the event that ends any cut stream: SDKs raise an error for that one alone."""
    sent = b"".join((chunk("Hi th"), last_piece(finish_reason, **members), chunk(choices=[], usage=USAGE), done))
    upstream.answer(streams(sent))
    status, _, raw = await gateway.raw_chat(STREAMED)
    assert (status, raw[: len(sent)]) == (200, sent)
    assert raw[len(sent) :].lstrip().startswith(b"" if done else b'data: {"error": {"message": ')
    assert raw.endswith(DONE) is bool(done)
    row = await gateway.row()
    assert row.status is RequestStatus.STREAM_BROKEN
    assert (row.output_tokens.value, row.cost_source) == (5, CostSource.REPORTED)


async def test_the_error_of_any_choice_counts(gateway: TestGateway, upstream: Upstream) -> None:
    broken = whole("Hi th", error=GONE)["choices"]
    upstream.answer(says({**COMPLETION, "choices": [*COMPLETION["choices"], *broken]}))
    await gateway.chat()
    assert (await gateway.row()).status is RequestStatus.UPSTREAM_ERROR


@pytest.mark.parametrize("code", [429, 502])
async def test_an_answer_in_which_nothing_was_generated_is_asked_for_again(
    start_gateway: StartGateway, upstream: Upstream, code: int
) -> None:
    gateway = await start_gateway(retry_max_retries=1, retry_base_seconds=0.001)
    failed = {**whole(None, error={**GONE, "code": code}), "usage": FREE}
    upstream.answer(says(failed), says())
    status, headers, body = await gateway.chat()
    assert (status, body, headers["x-gateway-attempts"]) == (200, COMPLETION, "2")
    assert (await gateway.row()).status is RequestStatus.SUCCESS


async def test_a_stream_in_which_nothing_was_generated_is_asked_for_again(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    """What comes before, with a choice that tells of no error yet, says nothing."""
    gateway = await start_gateway(retry_max_retries=1, retry_base_seconds=0.001)
    role = last_piece(None, error=None)
    sent = [chunk("a"), *ending()]
    upstream.answer(streams(role, last_piece(error=GONE), DONE), streams(*sent))
    status, headers, raw = await gateway.raw_chat(STREAMED)
    assert (status, raw, headers["x-gateway-attempts"]) == (200, b"".join(sent), "2")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_refusal_in_place_of_an_answer_has_the_status_that_it_gives_itself(
    gateway: TestGateway, upstream: Upstream, streamed: bool
) -> None:
    refusal = {"code": 403, "message": "flagged"}
    failed = {**whole("", error=refusal), "usage": FREE}
    upstream.answer(streams(last_piece(error=refusal), DONE) if streamed else says(failed))
    status, _, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert (status, openai_error(raw)["message"], upstream.calls) == (403, "flagged", 1)
    assert (await gateway.row()).error_type == "error_in_answer_403"


async def test_an_answer_that_was_billed_is_not_asked_for_again(gateway: TestGateway, upstream: Upstream) -> None:
    """Though nothing of it can be read: what is thrown away must be paid all the same, and would not be booked."""
    upstream.answer(says(whole(None, error=GONE)))
    status, _, body = await gateway.chat()
    assert (status, body["choices"][0]["error"], upstream.calls) == (200, GONE, 1)
    row = await gateway.row()
    assert (row.status, row.cost_source) == (RequestStatus.UPSTREAM_ERROR, CostSource.REPORTED)


@pytest.mark.parametrize(
    "members", [{"error": None}, {"error": {}}, {"error": GONE}, {"logprobs": {"content": [{"token": "error"}]}}]
)
async def test_an_answer_that_ended_well_is_a_success(
    gateway: TestGateway, upstream: Upstream, members: dict[str, Any]
) -> None:
    upstream.answer(says(whole("Hi there!", "stop", **members)))
    await gateway.chat()
    upstream.answer(streams(chunk("Hi"), last_piece("stop", **members), DONE))
    await gateway.raw_chat(STREAMED)
    assert [row.status for row in await gateway.rows(2)] == [RequestStatus.SUCCESS] * 2


async def test_an_answer_that_broke_off_is_not_kept_for_its_idempotency_key(
    gateway: TestGateway, upstream: Upstream
) -> None:
    upstream.answer(says(whole("Hi th", error=GONE)), says())
    await gateway.chat(Idempotency_Key="k1")
    status, _, body = await gateway.chat(Idempotency_Key="k1")
    assert (status, body, upstream.calls) == (200, COMPLETION, 2)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("finish_reason", ["error", "stop", None])
@pytest.mark.parametrize("is_object", [True, False])
async def test_keys_in_the_error_of_a_choice_are_blotted_out_and_nothing_else(
    gateway: TestGateway, upstream: Upstream, is_object: bool, finish_reason: str | None, streamed: bool
) -> None:
    """However the choice ended, and whatever the error is."""
    key = "sk-or-v1-0123456789abcdef0123456789abcdef"
    message = f"Incorrect API key provided: {key}"
    error = {"code": 502, "message": message} if is_object else message
    quoting = chunk(choices=[{"index": 0, "delta": {"content": f"{key} is"}, "finish_reason": None, "error": None}])
    upstream.answer(
        streams(quoting, last_piece(finish_reason, error=error), DONE)
        if streamed
        else says(whole(f"{key} is", finish_reason, error=error))
    )
    _, _, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert raw.count(key.encode()) == 1
    assert b"provided: [redacted]" in raw
