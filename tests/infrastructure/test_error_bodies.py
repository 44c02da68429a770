"""Errors as servers other than OpenRouter send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.domain.errors import PermanentUpstreamError, TransientUpstreamError
from proxy.infrastructure.chat_completion.error_bodies import error_details, retry_delay_seconds
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors

ERRORS = UpstreamErrors("Acme")


def details(body: Any) -> Any:
    return error_details(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": "c"}}, "whole"),
        ({"id": "o1", "error": {"message": "m"}}, {"message": "m"}),
        ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "whole"),
        ({"error": "m"}, {"message": "m"}),
        ({"error": "m", "error_type": "validation"}, {"message": "m"}),
        (
            {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
            {"message": "m", "type": "BadRequestError", "param": None, "code": 400},
        ),
        ({"message": "Unauthorized", "request_id": "r"}, {"message": "Unauthorized", "request_id": "r"}),
        ({"statusCode": 429, "message": "Rate limit"}, {"statusCode": 429, "message": "Rate limit"}),
        ({"detail": "Not Found"}, {"message": "Not Found"}),
        ({"detail": {"error": {"message": "m"}}}, {"message": "m"}),
        ({"detail": {"message": "m", "x": 1}}, {"message": "m", "x": 1}),
        (
            {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "bad role"}, {"loc": ["body"], "msg": "bad"}]},
            {"message": "messages.0.role: bad role; body: bad", "param": "messages.0.role"},
        ),
        ({"detail": [{"msg": "bad"}, "x"]}, {"message": "body: bad", "param": "body"}),
        (
            {"success": False, "errors": [{"code": 7003, "message": "m"}, {"code": 7000, "message": "n"}]},
            {"code": 7003, "message": "m; n"},
        ),
        ({"errors": ["x", {"message": None}, {"message": "m", "code": 5}]}, {"message": "m"}),
        ({"errors": [{"code": 5}]}, None),
        ({"errors": ["m"]}, None),
        ({"errors": {"message": "m"}}, None),
        ({}, None),
        ([], None),
        ({"detail": []}, None),
        ({"detail": None}, None),
        ({"message": None}, None),
        ({"message": ["m"]}, None),
    ],
)
def test_the_error_object_is_found(body: Any, expected: Any) -> None:
    if expected == "whole":
        expected = (body[0] if isinstance(body, list) else body)["error"]
    assert details(body) == expected


def test_a_message_that_is_an_object_gives_way_to_what_is_in_it() -> None:
    """Mistral's, when a field is not known to it."""
    inner = {"detail": [{"loc": ["body", "logit_bias"], "msg": "Extra inputs are not permitted"}]}
    found = details({"object": "error", "message": inner, "type": "invalid_request_error", "code": None})
    assert found == {
        "message": "logit_bias: Extra inputs are not permitted",
        "param": "logit_bias",
        "type": "invalid_request_error",
        "code": None,
    }


def test_a_message_that_is_an_object_of_no_known_form_is_not_told() -> None:
    body = json.dumps({"message": {"x": 1}, "type": "t"}).encode()
    error = ERRORS.from_response(400, CIMultiDict(), body, {})
    assert str(error) == "Acme answered HTTP 400."


@pytest.mark.parametrize(
    ("told", "status", "kind"),
    [
        ({"message": "m", "code": 429}, 429, TransientUpstreamError),
        ({"message": "m", "code": "content_filter", "status": 400}, 400, PermanentUpstreamError),
        ({"message": "m", "code": "content_filter"}, 400, PermanentUpstreamError),
        ({"message": "m", "code": "context_length_exceeded"}, 400, PermanentUpstreamError),
        ({"message": "prompt is too long: 5 tokens > 4 maximum"}, 400, PermanentUpstreamError),
        ({"message": "m", "code": "500"}, 500, TransientUpstreamError),
        ({"message": "m", "status": "INTERNAL"}, 502, TransientUpstreamError),
        ({"message": "m", "type": "server_error", "code": None}, 502, TransientUpstreamError),
    ],
)
def test_an_error_inside_an_answer_has_the_status_that_it_gives_itself(
    told: dict[str, Any], status: int, kind: type[Exception]
) -> None:
    error = ERRORS.from_error_member(told, b"", CIMultiDict(), {})
    assert (error.status, type(error)) == (status, kind)


def test_a_prompt_that_is_too_long_is_no_outage_though_some_servers_answer_500() -> None:
    """llama.cpp did: it must neither be tried again nor count against the server's health."""
    body = {"error": {"code": 500, "message": "m", "type": "exceed_context_size_error"}}
    error = ERRORS.from_response(500, CIMultiDict(), json.dumps(body).encode(), {})
    assert (type(error), error.status) == (PermanentUpstreamError, 500)


def google(delay: Any) -> dict[str, Any]:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    return {"code": 429, "message": "m", "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, info]}


@pytest.mark.parametrize(
    ("delay", "seconds"), [("34s", 34.0), ("34.074824224s", 34.074824224), ("0s", 0.0), ("86401s", None)]
)
def test_googles_wait_is_read(delay: str, seconds: float | None) -> None:
    body = json.dumps([{"error": google(delay)}]).encode()
    assert ERRORS.from_response(429, CIMultiDict(), body, {}).retry_after_seconds == seconds
    header = CIMultiDict({"Retry-After": "7"})
    assert ERRORS.from_response(429, header, body, {}).retry_after_seconds == 7.0


@pytest.mark.parametrize("delay", ["", "s", "-1s", "34", "1m", "9" * 400 + "s", None, 5, ["34s"]])
def test_a_wait_of_another_form_is_none(delay: Any) -> None:
    assert retry_delay_seconds(google(delay)) is None


@pytest.mark.parametrize("parts", [None, 5, "x", {}, [None], [[]], [{}]])
def test_details_of_any_form_are_read(parts: Any) -> None:
    assert retry_delay_seconds({"details": parts}) is None
