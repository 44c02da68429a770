"""Errors made of what an upstream sent instead of an answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.domain.errors import InvalidUpstreamAnswer, PermanentUpstreamError, TransientUpstreamError, UpstreamError
from proxy.infrastructure.chat_completion.upstream_errors import UpstreamErrors, retry_after_seconds

_property = settings(max_examples=200, deadline=None, database=None, derandomize=True)

SECRET = "s3cret-of-ours"
ERRORS = UpstreamErrors("OpenRouter", (SECRET,))
NO_JSON = "OpenRouter answered HTTP {} without a JSON error body."


def from_response(body: bytes | Mapping[str, Any], status: int = 400, headers: Mapping[str, str] = {}) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ERRORS.from_response(status, CIMultiDict(headers), raw, {})


def from_member(details: Mapping[str, Any]) -> UpstreamError:
    return ERRORS.from_error_member(details, b"", CIMultiDict(), {})


# Transient or not

TRANSIENT = [429, 500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 529, 599]
PERMANENT = [400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 451, 499]


@pytest.mark.parametrize("status", TRANSIENT)
def test_rate_limits_and_server_errors_are_transient(status: int) -> None:
    for error in (from_response(b"", status), from_member({"code": status, "message": "x"})):
        assert type(error) is TransientUpstreamError
        assert error.status == status


@pytest.mark.parametrize("status", PERMANENT)
def test_other_client_errors_are_permanent(status: int) -> None:
    for error in (from_response(b"", status), from_member({"code": status, "message": "x"})):
        assert type(error) is PermanentUpstreamError
        assert error.status == status


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_an_error_that_repeating_does_not_mend(status: int) -> None:
    assert type(from_response(b"", status)) is PermanentUpstreamError


def test_no_connection_and_no_time_left_are_transient_and_have_no_status() -> None:
    late = ERRORS.timeout("did not begin to answer", 30.0)
    assert type(late) is TransientUpstreamError
    assert (str(late), late.status, late.kind) == ("OpenRouter did not begin to answer within 30 s.", None, "timeout")
    lost = ERRORS.unreachable(ConnectionResetError("10.1.2.3:443 reset by peer"))
    assert type(lost) is TransientUpstreamError
    assert (lost.status, lost.kind, lost.provider) == (None, "connection", "OpenRouter")


def test_an_unreachable_upstream_s_address_is_not_told() -> None:
    lost = ERRORS.unreachable(OSError("cannot connect to host internal.example:443"))
    assert str(lost) == "Connection to OpenRouter failed (OSError)."


def test_an_answer_that_is_no_completion_is_permanent() -> None:
    error = ERRORS.invalid("no choices in the answer", b"{}")
    assert type(error) is InvalidUpstreamAnswer
    assert str(error) == "OpenRouter sent an answer that is not a chat completion: no choices in the answer"
    assert (error.body, error.kind, error.provider) == (b"{}", "invalid_answer", "OpenRouter")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}),
        (401, [{"error": {"code": 400, "message": "API key expired. Please renew the API key."}}]),
        (401, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***xx."}),
        (402, {"error": {"message": "Your credit balance is too low to access the Anthropic API."}}),
        (402, {"error": {"code": "Arrearage", "message": "Access denied."}}),
        (
            403,
            {"error": {"message": "User location is not supported for the API use.", "status": "FAILED_PRECONDITION"}},
        ),
        (403, {"error": {"message": "Precondition check failed.", "status": "FAILED_PRECONDITION"}}),
        (
            400,
            {
                "error": {
                    "message": "The File cxgja95z0ak1 is not in an ACTIVE state and usage is not allowed.",
                    "status": "FAILED_PRECONDITION",
                }
            },
        ),
        (401, {"error": {"code": 400, "message": "Schlüssel ungültig", "details": [{"reason": "API_KEY_INVALID"}]}}),
        (401, {"error": {"code": "invalid_api_key", "message": "No."}}),
        (400, {"error": {"code": 400, "message": "Unknown name 'x'", "status": "INVALID_ARGUMENT"}}),
        (400, {"error": {"code": None, "message": None}}),
    ],
)
def test_what_is_about_the_operators_account_is_no_bad_request(status: int, body: Any) -> None:
    error = from_response(json.dumps(body).encode(), 400)
    assert (type(error), error.status, error.kind) == (PermanentUpstreamError, status, f"http_{status}")


@pytest.mark.parametrize(
    "message",
    [
        "messages[1]: 'API key expired. Please renew the API key.' is no valid text.",
        "Invalid value: 'why does it say API key not valid. Please pass a valid API key.?'",
        "API key expired: what does that mean?",
        "Unsupported value 'Incorrect API key provided: sk-…'",
        "Tool result 'Your credit balance is too low to access the Anthropic API.' has no tool call.",
    ],
)
@pytest.mark.parametrize("details", [None, "API_KEY_INVALID", ["API_KEY_INVALID"], [{"reason": ["API_KEY_INVALID"]}]])
def test_a_clients_bad_request_stays_one_whatever_it_quotes(message: str, details: Any) -> None:
    assert from_response({"error": {"code": 400, "message": message, "details": details}}).status == 400
    assert from_member({"code": 400, "message": message, "details": details}).status == 400


# What an error answer says


def test_members_of_the_error_object_are_kept() -> None:
    details = {
        "code": 429,
        "message": "slow down",
        "metadata": {"error_type": "rate_limit_exceeded", "raw": None, "n": [1.5, 2**60, True]},
        "unheard_of": "日本語",
    }
    error = from_response({"error": details, "user_id": "u"}, 429)
    assert str(error) == "slow down"
    assert error.details == details


def test_facts_of_an_error_answer() -> None:
    body = b'{"error": {"message": "slow down"}}'
    error = ERRORS.from_response(429, CIMultiDict({"Retry-After": "7"}), body, {"x-ratelimit-reset": "9"})
    assert (error.status, error.kind, error.provider) == (429, "http_429", "OpenRouter")
    assert error.body == body
    assert error.retry_after_seconds == 7.0
    assert error.headers == {"x-ratelimit-reset": "9"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>",
        b"upstream connect error",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"error": null}',
        b'{"error": ""}',
        b'{"error": 5}',
        b'{"error": ["x"]}',
        b'{"detail": []}',
        b'{"detail": [5]}',
        b'{"detail": ""}',
        b'{"message": ""}',
        b'[{"error": {"message": "one"}}, {"error": {"message": "two"}}]',
        b'{"error": {"message": "cut o',
        b"[" * 100_000,
    ],
)
def test_a_body_without_an_error_object_gives_a_message_of_our_own(body: bytes) -> None:
    error = from_response(body, 502)
    assert str(error) == NO_JSON.format(502)
    assert error.details == {"message": NO_JSON.format(502)}
    assert error.status == 502


def test_an_error_that_is_a_string_is_its_message() -> None:
    error = from_response({"error": "model is loading"}, 503)
    assert str(error) == "model is loading"
    assert error.details == {"message": "model is loading"}


@pytest.mark.parametrize("message", [None, "", 5, ["x"], {"x": 1}])
def test_an_error_without_a_message_in_words_gets_one(message: Any) -> None:
    error = from_response({"error": {"message": message, "code": "odd"}}, 418)
    assert str(error) == "OpenRouter answered HTTP 418."
    assert error.details["code"] == "odd"


def test_an_empty_error_object_gets_a_message() -> None:
    assert str(from_response({"error": {}})) == "OpenRouter answered HTTP 400."


def test_a_lone_surrogate_in_a_message_is_no_reason_to_lose_it() -> None:
    assert str(from_response(rb'{"error": {"message": "bad \ud83d"}}')) == "bad ?"


def test_characters_beyond_the_basic_plane_survive_their_escapes() -> None:
    """Most JSON writers escape an emoji as two surrogates; together they are no lone ones."""
    assert str(from_response(rb'{"error": {"message": "\ud83d\ude00 busy"}}')) == "😀 busy"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "\xff"}}',
        b'{"error": {"message": "x", "metadata": {"n": 1e999}}}',
        b'{"error": {"code": 1' + b"0" * 5000 + b"}}",
        b'{"error": {"message": "x", "metadata": ' + b"[" * 900 + b"]" * 900 + b"}}",
    ],
)
def test_a_body_that_cannot_be_read_is_an_error_with_its_status_and_no_crash(body: bytes) -> None:
    """Anything else that is raised here would reach the client as a 500 of ours, and never be retried."""
    error = from_response(body, 503)
    assert type(error) is TransientUpstreamError
    assert error.status == 503
    assert str(error)


# Errors inside a 200 answer


@pytest.mark.parametrize("code", [None, "rate_limit_exceeded", 0, -1, 200, 399, 600, 10**30, 429.5, True, [], "x"])
def test_a_code_that_is_no_error_status_counts_as_bad_gateway(code: Any) -> None:
    error = from_member({"code": code, "message": "x"})
    assert type(error) is TransientUpstreamError
    assert (error.status, error.kind) == (502, "error_in_answer_502")


def test_an_error_member_without_a_code_is_a_bad_gateway() -> None:
    assert from_member({"message": "x"}).status == 502


@pytest.mark.parametrize("code", [400, 599])
def test_codes_at_the_edges_are_statuses(code: int) -> None:
    error = from_member({"code": code, "message": "x"})
    assert (error.status, error.kind) == (code, f"error_in_answer_{code}")


def test_an_error_member_keeps_its_members_its_bytes_and_the_wait() -> None:
    details = {"code": 429, "message": "later", "metadata": {"provider_code": 7}}
    headers = CIMultiDict({"retry-after-ms": "1500"})
    error = ERRORS.from_error_member(details, b"{...}", headers, {"x-generation-id": "gen-1"})
    assert (error.details, error.body, str(error)) == (details, b"{...}", "later")
    assert error.retry_after_seconds == 1.5
    assert error.headers == {"x-generation-id": "gen-1"}


# Redaction


@pytest.mark.parametrize(
    "text",
    [
        f"No auth for key {SECRET}",
        f"{SECRET}{SECRET}",
        "Incorrect API key: sk-or-v1-0123456789abcdef.",
        "sk-proj_abc-DEF-0123456789",
        "pk-1234567890",
        "rk-1234567890",
        "header was 'Authorization: Bearer abc.def.ghi'",
        "Bearer   short",
    ],
)
def test_keys_are_blotted_out_wherever_they_stand(text: str) -> None:
    shown = [
        from_response({"error": {"message": text, "metadata": {"raw": [text, {"x": text}]}}}),
        from_response({"error": text}),
        from_member({"message": text, "metadata": {"raw": text}}),
    ]
    for error in shown:
        everything = json.dumps(error.details) + str(error)
        assert "[redacted]" in str(error)
        for key in (SECRET, "sk-or-v1", "0123456789", "1234567890", "abc.def", "short"):
            assert key not in everything


def test_what_surrounds_a_key_stays() -> None:
    assert str(from_response({"error": f"key {SECRET} is bad"})) == "key [redacted] is bad"


def test_a_key_written_in_escapes_is_a_key() -> None:
    body = b'{"error": {"message": "\\u0073k-or-v1-0123456789"}}'
    assert str(from_response(body)) == "[redacted]"


@pytest.mark.parametrize(
    "text", ["the task-force sk-ip", "risk-averse-people", "ask-me-anything-now", "pk-1", "bearer"]
)
def test_words_that_only_look_like_keys_stay(text: str) -> None:
    assert str(from_response({"error": text})) == text


def test_an_empty_key_blots_out_nothing() -> None:
    assert str(UpstreamErrors("Local", ("",)).from_response(400, {}, b'{"error": "abc"}', {})) == "abc"


def test_a_long_message_is_cut_and_no_key_survives_at_the_cut() -> None:
    error = from_response({"error": {"message": "x " * 1990 + "sk-or-v1-" + "a" * 50 + " y" * 4000}})
    assert len(str(error)) == 4000
    assert "sk-" not in str(error)


def test_numbers_and_nulls_are_left_alone() -> None:
    details = {"message": "x", "n": 5, "none": None, "yes": True, "list": [1, None]}
    assert from_member(details).details == details


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "30"}, 30.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"Retry-After": " 3 "}, 3.0),
        ({"Retry-After": "86400"}, 86400.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "0"}, 0.0),
        ({"retry-after-ms": "250", "Retry-After": "30"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "30"}, 30.0),
        ({"retry-after-ms": "-1", "Retry-After": "30"}, 30.0),
        ({"retry-after-ms": "86400000"}, 86400.0),
        ({"retry-after-ms": "99999999999999999999", "Retry-After": "30"}, 30.0),
        ({"retry-after-ms": "99999999999999999999"}, None),
    ],
)
def test_seconds_and_milliseconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(CIMultiDict(headers)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e308",
        "86401",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "0x10",
        "1 2",
        "Wed, 99 Nov 2026 25:00:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "1 Jan 2030 00:00:00 +99999999999999999999",
    ],
)
def test_a_wait_that_makes_no_sense_is_none(text: str) -> None:
    assert retry_after_seconds(CIMultiDict({"Retry-After": text})) is None


def test_a_date_to_come_is_the_time_until_then() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=10), usegmt=True)
    seconds = retry_after_seconds(CIMultiDict({"Retry-After": date}))
    assert seconds is not None
    assert 9 * 3600 < seconds <= 10 * 3600


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock on the wall is 14 hours ahead."""
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "XXX-14")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S -0000", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
@pytest.mark.usefixtures("far_east")
def test_all_forms_of_http_dates_are_utc(form: str) -> None:
    """RFC 9110 has recipients take the two obsolete forms too."""
    date = (datetime.now(UTC) + timedelta(hours=10)).strftime(form)
    seconds = retry_after_seconds(CIMultiDict({"Retry-After": date}))
    assert seconds is not None
    assert 9 * 3600 < seconds <= 10 * 3600


def test_a_date_in_the_past_is_no_wait() -> None:
    assert retry_after_seconds(CIMultiDict({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})) == 0.0


_words = st.lists(
    st.sampled_from(["Mon,", "1", "31", "Jan", "2030", "99999", "00:00:00", "25:61:99", "GMT", "-0000", "+9959", "1e9"])
    | st.integers().map(str)
    | st.text(max_size=4)
).map(" ".join)


@_property
@given(_words)
@example("1 Jan 2030 00:00:00 +99999999999999999999")
def test_any_text_is_a_wait_of_zero_or_more_or_none(text: str) -> None:
    seconds = retry_after_seconds({"Retry-After": text, "retry-after-ms": text})
    assert seconds is None or 0 <= seconds <= 86_400
