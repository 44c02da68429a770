"""What a client sees, and the books and logs say, when the upstream fails in any way it can."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.domain.request_log import CostSource, RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, fails, says

ONCE = {"retry_max_retries": 0}
METADATA = {
    "error_type": "x",
    "provider_name": "P",
    "raw": '{"a":1}',
    "previous_errors": [],
    "deep": {"a": [None, 1.5]},
}

# The upstream's status, the client's, OpenAI's word for it, and the class that its SDK raises.
STATUSES: list[tuple[int, int, str, type[openai.APIStatusError]]] = [
    (400, 400, "invalid_request_error", openai.BadRequestError),
    (401, 502, "server_error", openai.InternalServerError),
    (402, 402, "insufficient_quota", openai.APIStatusError),
    (403, 403, "permission_error", openai.PermissionDeniedError),
    (404, 404, "invalid_request_error", openai.NotFoundError),
    (408, 408, "timeout_error", openai.APIStatusError),
    (409, 409, "invalid_request_error", openai.ConflictError),
    (413, 413, "invalid_request_error", openai.APIStatusError),
    (422, 422, "invalid_request_error", openai.UnprocessableEntityError),
    (429, 429, "rate_limit_error", openai.RateLimitError),
    (500, 500, "server_error", openai.InternalServerError),
    (502, 502, "server_error", openai.InternalServerError),
    (503, 503, "server_error", openai.InternalServerError),
    (504, 504, "server_error", openai.InternalServerError),
    (520, 520, "server_error", openai.InternalServerError),
    (524, 524, "server_error", openai.InternalServerError),
    (529, 529, "server_error", openai.InternalServerError),
]
OTHERS = [row for row in STATUSES if row[0] != 401]
TRANSIENT = (429, 500, 502, 503, 504, 520, 524, 529)


def ids(rows: list[Any]) -> list[str]:
    return [str(row[0]) for row in rows]


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("code", "calls"), [(402, 1), (429, 2), (503, 2)])
async def test_an_error_in_a_200_answer_is_one_also_where_a_stream_was_asked_for(
    start_gateway: StartGateway, upstream: Upstream, streamed: bool, code: int, calls: int
) -> None:
    gateway = await start_gateway(retry_max_retries=1, retry_base_seconds=0.001)
    error = {"code": code, "message": "not now", "metadata": METADATA}
    upstream.answer(says({"error": error}), says({"error": error}, headers={"Retry-After": "9000"}))
    got, headers, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert (got, upstream.calls) == (code, calls)
    assert openai_error(raw)["message"] == "not now"
    assert openai_error(raw)["metadata"] == METADATA
    assert (headers.get("retry-after") == "9000") is (calls == 2)


async def cut_in_its_body(request: web.Request) -> web.StreamResponse:
    """400, and a connection that is lost before its body is whole."""
    response = web.StreamResponse(status=400, headers={"Content-Type": "application/json", "Content-Length": "200"})
    await response.prepare(request)
    await response.write(b'{"error": {"message": "bad para')
    assert request.transport is not None
    request.transport.close()
    return response


async def without_an_end(request: web.Request) -> web.StreamResponse:
    """400, and a body that goes on for ever."""
    response = web.StreamResponse(status=400, headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"error": {"message": "bad parameter"}}')
    await asyncio.sleep(3600)
    return response


@pytest.mark.parametrize("answering", [cut_in_its_body, without_an_end])
async def test_a_refusal_stays_one_though_its_body_does_not_come_to_its_end(
    start_gateway: StartGateway, upstream: Upstream, answering: Any
) -> None:
    gateway = await start_gateway(openrouter_timeout_seconds=0.3, retry_max_retries=3)
    upstream.answer(answering)
    got, _, raw = await gateway.raw_chat(HELLO)
    assert (got, upstream.calls) == (400, 1)
    assert openai_error(raw)["type"] == "invalid_request_error"
    row = await gateway.row()
    assert (row.error_type, row.cost_source) == ("http_400", CostSource.NONE)


async def test_what_an_error_tells_besides_its_message_is_not_shortened(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(**ONCE)
    raw_answer = json.dumps({"why": "x" * 10_000})
    upstream.answer(fails(400, metadata={"raw": raw_answer}))
    _, _, raw = await gateway.raw_chat(HELLO)
    assert openai_error(raw)["metadata"] == {"raw": raw_answer}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_metadata_that_was_asked_for_comes_with_errors_too(
    start_gateway: StartGateway, upstream: Upstream, status: int, streamed: bool
) -> None:
    """Without the operator's account, which stands there as well."""
    gateway = await start_gateway(**ONCE)
    metadata = {"requested": "a/b", "attempts": [{"provider": "Acme", "key": "sk-or-provider-secret"}]}
    told = {"error": {"code": 400, "message": "no"}, "user_id": "user_1", "openrouter_metadata": metadata}
    upstream.answer(says(told, status=status))
    got, _, raw = await gateway.raw_chat({**HELLO, "stream": streamed}, X_OpenRouter_Metadata="enabled")
    assert (got, upstream.headers[0]["X-OpenRouter-Metadata"]) == (400, "enabled")
    answer = json.loads(raw)
    assert set(answer) == {"error", "openrouter_metadata"}
    assert answer["openrouter_metadata"] == {
        "requested": "a/b",
        "attempts": [{"provider": "Acme", "key": "[redacted]"}],
    }


@pytest.mark.parametrize(("upstreams", "status", "type_", "_class"), OTHERS, ids=ids(OTHERS))
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_an_error_keeps_its_status_message_and_metadata(
    start_gateway: StartGateway,
    upstream: Upstream,
    upstreams: int,
    status: int,
    type_: str,
    _class: type[Exception],
    streamed: bool,
) -> None:
    """And gains the keys that OpenAI's schema requires; one row says how it ended."""
    gateway = await start_gateway(**ONCE)
    upstream.answer(fails(upstreams, metadata=METADATA))
    got, headers, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert got == status
    assert headers["content-type"].startswith("application/json")
    error = openai_error(raw)
    assert error["message"] == "no luck"
    assert error["type"] == type_
    assert error["param"] is None
    assert error["code"] == upstreams
    assert error["metadata"] == METADATA
    assert ("x-should-retry" in headers) == (upstreams in TRANSIENT)
    assert upstream.calls == 1
    row = await gateway.row()
    assert row.status is RequestStatus.UPSTREAM_ERROR
    assert (row.http_status, row.error_type, row.attempts) == (status, f"http_{upstreams}", 1)
    assert row.request_id == headers["x-request-id"]
    assert row.total_tokens() == 0


async def test_the_keys_that_an_upstream_does_give_are_kept(start_gateway: StartGateway, upstream: Upstream) -> None:
    """As OpenAI's own API words its errors, and as OpenRouter's newer ones."""
    gateway = await start_gateway(**ONCE)
    said = {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
        "availability": {"code": "x", "retryable": False},
        "of_next_year": [1],
    }
    upstream.answer(says({"error": said, "user_id": "u"}, status=400))
    _, _, body = await gateway.chat()
    assert body["error"] == said


async def test_an_upstream_401_is_about_our_key_not_the_clients(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await start_gateway()
    upstream.answer(fails(401, message="No auth credentials found"))
    status, _, raw = await gateway.raw_chat()
    error = openai_error(raw)
    assert status == 502
    assert error["code"] == "upstream_authentication_failed"
    assert "OpenRouter" in error["message"]
    assert "operator" in error["message"]
    assert upstream.calls == 1
    (record,) = errors_logged(caplog)
    assert record.__dict__["upstream_status"] == 401
    row = await gateway.row()
    assert (row.status, row.http_status, row.error_type) == (RequestStatus.UPSTREAM_ERROR, 502, "http_401")


@pytest.mark.parametrize("status", [400, 402, 403, 429, 503])
async def test_a_failure_is_logged_once_as_an_error(
    start_gateway: StartGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """With what an operator needs to find it, and without the upstream's words, which may repeat the prompt."""
    gateway = await start_gateway(**ONCE)
    upstream.answer(fails(status))
    _, headers, _ = await gateway.chat()
    (record,) = errors_logged(caplog)
    facts = record.__dict__
    assert (facts["provider"], facts["upstream_status"], facts["attempts"]) == ("OpenRouter", status, 1)
    assert facts["request_id"] == headers["x-request-id"]
    assert "no luck" not in str(facts)


PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>cloudflare</h1></body></html>"
NOT_AN_ERROR_OBJECT = {
    "HTML": PAGE,
    "nothing": b"",
    "text": b"upstream connect error",
    "broken JSON": b'{"error": {"message": "no',
    "array": b"[]",
    "null": b"null",
    "another object": b'{"trouble": "Not Found"}',
    "null error": b'{"error": null}',
    "number": b'{"error": 5}',
    "empty error": b'{"error": {}}',
    "empty message": b'{"error": {"message": ""}}',
    "object for a message": b'{"error": {"message": {"a": 1}}}',
    "binary": bytes(range(256)),
    "too deep": b'{"error": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge": b'{"error": {"message": "' + b"x" * 3_000_000 + b'"}}',
}


@pytest.mark.parametrize("body", NOT_AN_ERROR_OBJECT.values(), ids=NOT_AN_ERROR_OBJECT)
@pytest.mark.parametrize("status", [400, 503])
async def test_any_error_body_becomes_openais_error_object(
    start_gateway: StartGateway, upstream: Upstream, body: bytes, status: int
) -> None:
    """No page of HTML in an exception's text, and never more of anything than a person would read."""
    gateway = await start_gateway(**ONCE)
    upstream.answer(says(body, status=status))
    got, headers, raw = await gateway.raw_chat()
    assert got == status
    assert headers["content-type"].startswith("application/json")
    error = openai_error(raw)
    assert "<" not in error["message"]
    assert "OpenRouter" in error["message"]
    assert len(raw) < 10_000


ODD_MEMBERS: list[dict[str, Any]] = [
    {"type": 7, "param": 7, "code": 7.5},
    {"type": None, "param": None, "code": None},
    {"type": {"a": 1}, "param": ["messages"], "code": {"a": 1}},
    {"type": ["x"], "param": {}, "code": [400]},
    {"type": True, "param": False, "code": True},
    {"metadata": "text"},
    {"metadata": {"\ud800": "\udfff"}},
]


@pytest.mark.parametrize("members", ODD_MEMBERS, ids=str)
async def test_odd_members_of_an_error_do_not_spoil_its_shape(
    start_gateway: StartGateway, upstream: Upstream, members: dict[str, Any]
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(says({"error": {"message": "no luck", **members}}, status=400))
    status, _, raw = await gateway.raw_chat()
    assert status == 400
    assert openai_error(raw)["message"] == "no luck"


WORDS = "špatný klíč"
OTHER_ENCODINGS = {
    "byte order mark": json.dumps({"error": {"message": WORDS}}, ensure_ascii=False).encode("utf-8-sig"),
    "UTF-16": json.dumps({"error": {"message": WORDS}}, ensure_ascii=False).encode("utf-16"),
    "UTF-16 without a mark": json.dumps({"error": {"message": WORDS}}, ensure_ascii=False).encode("utf-16-le"),
}


@pytest.mark.parametrize("body", OTHER_ENCODINGS.values(), ids=OTHER_ENCODINGS)
async def test_an_error_in_another_encoding_keeps_its_words(
    start_gateway: StartGateway, upstream: Upstream, body: bytes
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(says(body, status=400))
    _, _, raw = await gateway.raw_chat()
    assert openai_error(raw)["message"] == WORDS


async def test_of_an_error_whose_encoding_is_not_told_the_rest_is_kept(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(says('{"error": {"message": "clé refusée", "code": "x"}}'.encode("latin-1"), status=400))
    _, _, raw = await gateway.raw_chat()
    assert openai_error(raw)["message"] == "cl\ufffd refus\ufffde"
    assert openai_error(raw)["code"] == "x"


async def test_an_answer_behind_a_byte_order_mark_is_one(gateway: TestGateway, upstream: Upstream) -> None:
    """Clients take it for one, and it is paid."""
    body = json.dumps(COMPLETION).encode("utf-8-sig")
    upstream.answer(says(body))
    status, _, raw = await gateway.raw_chat()
    assert (status, raw) == (200, body)
    row = await gateway.row()
    assert (row.status, row.input_tokens.value) == (RequestStatus.SUCCESS, 10)


async def test_an_error_that_is_only_a_text_is_the_message(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(says({"error": "model is loading"}, status=503))
    _, _, raw = await gateway.raw_chat()
    assert openai_error(raw)["message"] == "model is loading"


NOT_A_COMPLETION = {
    "HTML": PAGE,
    "nothing": b"",
    "white space": b" \n\n",
    "cut": json.dumps(COMPLETION).encode()[:-10],
    "array": b"[]",
    "string": b'"ok"',
    "null": b"null",
    "empty object": b"{}",
    "no choices": json.dumps({"id": "gen-1", "usage": COMPLETION["usage"]}).encode(),
    "null choices": b'{"choices": null}',
    "choices of another type": b'{"choices": {"a": 1}}',
    "event stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("body", NOT_A_COMPLETION.values(), ids=NOT_A_COMPLETION)
async def test_a_success_that_is_no_completion_is_an_error(
    gateway: TestGateway, upstream: Upstream, body: bytes
) -> None:
    """Not tried again: it may have been billed."""
    upstream.answer(says(body))
    status, _, raw = await gateway.raw_chat()
    error = openai_error(raw)
    assert status == 502
    assert (error["type"], error["code"]) == ("server_error", "invalid_upstream_answer")
    assert "<" not in error["message"]
    assert upstream.calls == 1
    row = await gateway.row()
    assert (row.status, row.http_status) == (RequestStatus.UPSTREAM_ERROR, 502)


@pytest.mark.parametrize("status", [201, 202])
async def test_other_success_statuses_are_success(gateway: TestGateway, upstream: Upstream, status: int) -> None:
    upstream.answer(says(status=status))
    got, _, body = await gateway.chat()
    assert (got, body) == (200, COMPLETION)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (400, 400),
        (401, 502),
        (402, 402),
        (403, 403),
        (429, 429),
        (500, 500),
        (502, 502),
        (529, 529),
        ("server_error", 502),
        (None, 502),
        (0, 502),
        (200, 502),
        (1000, 502),
        (True, 502),
    ],
)
async def test_an_error_in_a_200_answer_is_an_error(
    start_gateway: StartGateway, upstream: Upstream, code: Any, status: int
) -> None:
    """OpenRouter answers so when a model fails late."""
    gateway = await start_gateway(**ONCE)
    upstream.answer(says({"error": {"code": code, "message": "failed late", "metadata": METADATA}, "choices": []}))
    got, _, raw = await gateway.raw_chat()
    assert got == status
    error = openai_error(raw)
    if code != 401:
        assert error["message"] == "failed late"
        assert error["metadata"] == METADATA
    row = await gateway.row()
    assert (row.status, row.http_status) == (RequestStatus.UPSTREAM_ERROR, status)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("choices", [{}, {"choices": None}], ids=["no choices", "null choices"])
@pytest.mark.parametrize(
    ("number", "told", "status", "code"),
    [
        (1002, "rate limit", 429, "1002"),
        (1004, "not authorized", 502, "upstream_authentication_failed"),
        (1008, "insufficient balance", 402, "1008"),
        (1024, "internal error", 502, "1024"),
        (1027, "output new_sensitive", 400, "content_filter"),
        (2013, "invalid params", 400, "2013"),
        (4711, "", 502, "4711"),
    ],
)
async def test_what_minimax_says_beside_choices_that_it_has_not_is_an_error(
    start_gateway: StartGateway,
    upstream: Upstream,
    number: int,
    told: str,
    status: int,
    code: str,
    choices: dict[str, Any],
    streamed: bool,
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(says({"id": "1", **choices, "base_resp": {"status_code": number, "status_msg": told}}))
    got, _, raw = await gateway.raw_chat({**HELLO, "stream": streamed})
    assert (got, openai_error(raw)["code"]) == (status, code)
    assert told in openai_error(raw)["message"] or number == 1004
    assert (await gateway.row()).error_type == f"error_in_answer_{401 if number == 1004 else status}"


@pytest.mark.parametrize("said", [0, None, "1002", True, {"a": 1}, 1.5])
async def test_what_minimax_would_not_say_is_no_error_of_it(
    gateway: TestGateway, upstream: Upstream, said: Any
) -> None:
    told = {"base_resp": {"status_code": said, "status_msg": "x"}}
    upstream.answer(says({**COMPLETION, **told}), says(told), says({"base_resp": said}))
    assert [(await gateway.raw_chat())[0] for _ in range(3)] == [200, 502, 502]
    assert [row.error_type for row in await gateway.rows(3)] == ["invalid_answer", "invalid_answer", None]


async def test_an_error_in_a_200_answer_is_retried_like_any_other(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(says({"error": {"code": 503, "message": "overloaded"}}), says())
    status, headers, _ = await gateway.chat()
    assert status == 200
    assert headers["x-gateway-attempts"] == "2"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(gateway: TestGateway, upstream: Upstream, status: int) -> None:
    """They would carry prompt and key to whomever the upstream names."""
    called: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.json_response(COMPLETION)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    async with TestServer(app) as other:
        upstream.answer(says(b"", status=status, headers={"Location": str(other.make_url("/api/v1/chat/completions"))}))
        got, headers, raw = await gateway.raw_chat()
    assert got == 502
    assert "location" not in headers
    openai_error(raw)
    assert called == []
    assert upstream.calls == 1


@pytest.mark.parametrize(("upstreams", "status", "type_", "class_"), STATUSES, ids=ids(STATUSES))
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_the_openai_sdk_raises_the_right_class(
    start_gateway: StartGateway,
    upstream: Upstream,
    upstreams: int,
    status: int,
    type_: str,
    class_: type[openai.APIStatusError],
    streamed: bool,
) -> None:
    gateway = await start_gateway(**ONCE)
    upstream.answer(fails(upstreams, message="no luck at all"))
    async with openai.AsyncOpenAI(base_url=str(gateway.url / "v1"), api_key="any", max_retries=0) as client:
        with pytest.raises(class_) as raised:
            await client.chat.completions.create(**HELLO, stream=streamed)
    error = raised.value
    assert type(error) is class_
    assert error.status_code == status
    assert error.type == type_
    assert upstreams == 401 or "no luck at all" in error.message
    assert error.request_id == (await gateway.row()).request_id


async def test_errors_do_not_reach_other_requests(start_gateway: StartGateway, upstream: Upstream) -> None:
    """Answers to many failing and succeeding requests at once are each the right one."""
    gateway = await start_gateway(**ONCE, circuit_breaker_failure_threshold=1000)

    async def by_user(request: web.Request) -> web.Response:
        user = (await request.json())["user"]
        status = int(user.partition("-")[0])
        if status == 200:
            return web.json_response({**COMPLETION, "id": user})
        return web.json_response({"error": {"code": status, "message": user}}, status=status)

    upstream.answer(by_user)
    users = [f"{status}-{number}" for number in range(20) for status in (200, 400, 429, 500)]
    answers = await asyncio.gather(*(gateway.chat({**HELLO, "user": user}) for user in users))
    for user, (status, _, body) in zip(users, answers, strict=True):
        assert user == (body["id"] if status == 200 else body["error"]["message"])
        assert user.startswith(str(status))
