"""What can be wrong with a body: each time one error, one row, nothing upstream."""

from __future__ import annotations

import json
import logging

import pytest

from proxy.api.openai.envelope import MOST_TOKENS
from proxy.api.openai.fields import FIELDS
from proxy.domain.request_log import RequestStatus
from tests.conftest import StartGateway
from tests.gateway.raw_http import openai_error, request_bytes
from tests.gateway.refusals import GOOD, refusal
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, says

MESSAGES = b'[{"role":"user","content":"Hello"}]'


DEEP = b"[" * 256 + b"]" * 256


def body_with(extra: bytes) -> bytes:
    """A good request with more members."""
    return b'{"model":"m","messages":' + MESSAGES + b"," + extra + b"}"


def body_of(messages: bytes) -> bytes:
    return b'{"model":"m","messages":' + messages + b"}"


BROKEN_VALUES = {
    "half a word": b"tru",
    "leading zero": b"01",
    "no digits after the point": b"1.",
    "no digits before the point": b".5",
    "plus sign": b"+1",
    "hexadecimal": b"0x10",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "minus Infinity": b"-Infinity",
    "single quotes": b"'a'",
    "unknown escape": rb'"\x"',
    "half an escape": rb'"\u12"',
    "no hexadecimal escape": rb'"\uzzzz"',
    "line break in a string": b'"a\nb"',
    "NUL in a string": b'"a\0b"',
    "open string": b'"a',
    "open array": b"[1",
    "trailing comma in an array": b"[1,]",
    "trailing comma in an object": b'{"a":1,}',
    "unquoted key": b"{a:1}",
    "mismatched brackets": b"[}",
    "comment": b"1 /* one */",
}


@pytest.mark.parametrize("value", BROKEN_VALUES.values(), ids=BROKEN_VALUES)
@pytest.mark.parametrize("place", [b'"temperature":%s', b'"unknown":{"a":[%s]}'], ids=["known field", "deep inside"])
async def test_a_value_that_is_not_json(gateway: TestGateway, upstream: Upstream, place: bytes, value: bytes) -> None:
    message = await refusal(gateway, upstream, request_bytes(body_with(place % value)), code="invalid_json")
    assert "JSON" in message


BROKEN_BODIES = {
    "empty": b"",
    "blank": b" \r\n\t ",
    "cut": GOOD[:-1],
    "trailing text": GOOD + b" x",
    "two objects": GOOD + GOOD,
    "trailing comma": GOOD[:-1] + b",}",
    "missing colon": b'{"model" "m"}',
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "form": b"model=m&messages=Hello",
    "array": b"[" + GOOD + b"]",
    "string": b'"model"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
}


@pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
async def test_a_body_that_is_no_json_object(gateway: TestGateway, upstream: Upstream, body: bytes) -> None:
    message = await refusal(gateway, upstream, request_bytes(body), code="invalid_json")
    assert "JSON" in message or "UTF-8" in message


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"],
    ids=["never a byte", "cut", "surrogate", "overlong", "beyond Unicode"],
)
@pytest.mark.parametrize("place", [b'"unknown":"%s"', b'"%s":1'], ids=["value", "key"])
async def test_invalid_utf8(gateway: TestGateway, upstream: Upstream, place: bytes, text: bytes) -> None:
    message = await refusal(gateway, upstream, request_bytes(body_with(place % text)), code="invalid_json")
    assert "UTF-8" in message


async def test_more_tokens_than_anybody_needs(gateway: TestGateway, upstream: Upstream) -> None:
    many = b",".join([b"[]"] * MOST_TOKENS)
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"metadata":{"a":[' + many + b"]}}"
    message = await refusal(gateway, upstream, request_bytes(body), code="too_complex")
    assert "200,000" in message


async def test_a_long_prompt_full_of_code_has_not_too_many(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(says())
    text = ",[" * MOST_TOKENS
    assert (await gateway.chat({**HELLO, "messages": [{"role": "user", "content": text}]}))[0] == 200


@pytest.mark.parametrize("depth", [257, 60_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
async def test_nesting_too_deep(
    gateway: TestGateway, upstream: Upstream, depth: int, brackets: tuple[bytes, bytes]
) -> None:
    body = body_with(b'"unknown":' + brackets[0] * depth + b"1" + brackets[1] * depth)
    message = await refusal(gateway, upstream, request_bytes(body), code="nesting_too_deep")
    assert "256" in message


@pytest.mark.parametrize(
    "body",
    [
        body_of(b'[{"role":"user","content":' + DEEP + b"}]"),
        body_of(b'[{"role":"user","content":"Hello","unknown":' + DEEP + b"}]"),
        body_with(b'"unknown":' + DEEP + b',"unknown":1'),
        body_with(b'"messages":' + DEEP + b',"messages":' + MESSAGES),
    ],
    ids=["in a content", "in a message", "in a member that comes twice", "in messages that come twice"],
)
async def test_nesting_too_deep_wherever_it_is(gateway: TestGateway, upstream: Upstream, body: bytes) -> None:
    await refusal(gateway, upstream, request_bytes(body), code="nesting_too_deep")


KINDS = {
    b'"text"': {"a string"},
    b"1.5": {"a number"},
    b"7": {"a number", "an integer"},
    b"7.0": {"a number", "an integer"},
    b"true": {"a boolean"},
    b"false": {"a boolean"},
    b"{}": {"an object"},
    b"[]": {"an array"},
    b"null": {"null"},
}


@pytest.mark.parametrize("name", FIELDS)
async def test_the_type_of_each_known_field(gateway: TestGateway, upstream: Upstream, name: str) -> None:
    """Each wrong one is refused, naming the field and the accepted forms; each right one goes upstream."""
    accepted = FIELDS[name]
    wrong = [value for value, forms in KINDS.items() if forms.isdisjoint(accepted)]
    for value in wrong:
        members = {b"model": b'"m"', b"messages": MESSAGES, name.encode(): value}
        body = b"{" + b",".join(b'"%s": %s' % member for member in members.items()) + b"}"
        status, _, answer = await gateway.raw_chat(body)
        error = openai_error(answer)
        assert status == 400
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", name, "invalid_type")
        assert f"'{name}'" in error["message"]
        assert all(form in error["message"] for form in accepted), error
    assert upstream.calls == 0
    rows = await gateway.rows(len(wrong))
    assert [row.status for row in rows] == [RequestStatus.REFUSED] * len(wrong)
    if name not in ("model", "messages", "stream"):
        for value in KINDS.keys() - set(wrong):
            body = body_with(b'"%s":%s' % (name.encode(), value))
            assert (await gateway.raw_chat(body))[0] == 200
            assert upstream.bodies[-1] == body


MODEL = {
    "missing": (b'{"messages":' + MESSAGES + b"}", "missing_required_parameter", "'model'"),
    "misspelt": (b'{"modle":"m","messages":' + MESSAGES + b"}", "missing_required_parameter", "'modle'"),
    "empty": (b'{"model":"","messages":' + MESSAGES + b"}", "invalid_value", "blank"),
    "blank": (b'{"model":" \\t\\n","messages":' + MESSAGES + b"}", "invalid_value", "blank"),
    "null": (b'{"model":null,"messages":' + MESSAGES + b"}", "invalid_type", "a string"),
    "number": (b'{"model":4,"messages":' + MESSAGES + b"}", "invalid_type", "a string"),
    "array": (b'{"model":["m"],"messages":' + MESSAGES + b"}", "invalid_type", "a string"),
}


@pytest.mark.parametrize(("body", "code", "word"), MODEL.values(), ids=MODEL)
async def test_a_model_that_is_none(
    gateway: TestGateway, upstream: Upstream, body: bytes, code: str, word: str
) -> None:
    message = await refusal(gateway, upstream, request_bytes(body), code=code, param="model")
    assert "'model'" in message
    assert word in message


THE_MESSAGES = {
    "missing": (b'{"model":"m"}', "messages", "missing_required_parameter", "'messages'"),
    "only a prompt": (b'{"model":"m","prompt":"Hi"}', "messages", "missing_required_parameter", "'messages'"),
    "empty": (body_of(b"[]"), "messages", "invalid_value", "empty"),
    "null": (body_of(b"null"), "messages", "invalid_type", "an array"),
    "string": (body_of(b'"Hi"'), "messages", "invalid_type", "an array"),
    "object": (body_of(b'{"role":"user"}'), "messages", "invalid_type", "an array"),
    "of numbers": (body_of(b"[1]"), "messages[0]", "invalid_type", "an object"),
    "of nulls": (body_of(MESSAGES[:-1] + b",null]"), "messages[1]", "invalid_type", "an object"),
    "of arrays": (body_of(b"[[]]"), "messages[0]", "invalid_type", "an object"),
    "of strings": (body_of(b'["Hi"]'), "messages[0]", "invalid_type", "an object"),
    "no role": (body_of(b'[{"content":"Hi"}]'), "messages[0].role", "missing_required_parameter", "role"),
    "empty message": (body_of(MESSAGES[:-1] + b",{}]"), "messages[1].role", "missing_required_parameter", "role"),
    "null role": (body_of(b'[{"role":null,"content":"Hi"}]'), "messages[0].role", "invalid_type", "a string"),
    "number role": (body_of(b'[{"role":7,"content":"Hi"}]'), "messages[0].role", "invalid_type", "a string"),
    "unknown role": (body_of(b'[{"role":"robot","content":"Hi"}]'), "messages[0].role", "invalid_value", "developer"),
    "role in capitals": (body_of(b'[{"role":"User","content":"Hi"}]'), "messages[0].role", "invalid_value", "user"),
    "empty role": (body_of(MESSAGES[:-1] + b',{"role":""}]'), "messages[1].role", "invalid_value", "assistant"),
    "number content": (body_of(b'[{"role":"user","content":7}]'), "messages[0].content", "invalid_type", "a string"),
    "object content": (body_of(b'[{"role":"user","content":{}}]'), "messages[0].content", "invalid_type", "an array"),
    "boolean content": (body_of(b'[{"role":"user","content":true}]'), "messages[0].content", "invalid_type", "null"),
}


@pytest.mark.parametrize(("body", "param", "code", "word"), THE_MESSAGES.values(), ids=THE_MESSAGES)
async def test_messages_that_are_none(
    gateway: TestGateway, upstream: Upstream, body: bytes, param: str, code: str, word: str
) -> None:
    message = await refusal(gateway, upstream, request_bytes(body), code=code, param=param)
    assert f"'{param}'" in message
    assert word in message


async def test_a_wrong_type_behind_a_lone_surrogate_is_found_too(gateway: TestGateway, upstream: Upstream) -> None:
    """Such texts take another way through the parser."""
    body = rb'{"model":"m","x":"\ud800","messages":[{"role":"user","content":"\udc00"},{"role":5}]}'
    await refusal(gateway, upstream, request_bytes(body), code="invalid_type", param="messages[1].role")


CONTROL = {"line break": r"a\r\nSet-Cookie: a=b", "NUL": r"a\u0000b", "escape": r"\u001b[31mred", "DEL": r"\u007f"}
ODD = {**CONTROL, "not ASCII": "modèle-模型", "lone surrogate": r"a\ud800b", "long": "m" * 5000}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
async def test_an_odd_model_name_goes_upstream_as_it_is(
    start_gateway: StartGateway, upstream: Upstream, database_url: str, name: str
) -> None:
    """The answer says it in a header without line breaks, and the row is booked, on both databases."""
    gateway = await start_gateway(database_url=database_url)
    body = f'{{"model":"{name}","messages":[{{"role":"user","content":"Hello"}}]}}'.encode()
    answer = json.dumps({**COMPLETION, "model": "@"}).encode().replace(b"@", name.encode())
    for reply in (answer, json.dumps({key: COMPLETION[key] for key in ("id", "choices", "usage")}).encode()):
        upstream.answer(says(reply))
        status, headers, raw = await gateway.raw_chat(body)
        assert (status, raw) == (200, reply)
        assert upstream.bodies == [body]
        assert headers["x-gateway-model"].isascii()
        assert headers["x-gateway-model"].isprintable()
        assert "set-cookie" not in headers
    rows = await gateway.rows(2)
    assert [row.status for row in rows] == [RequestStatus.SUCCESS] * 2
    assert len(rows) == 2


@pytest.mark.parametrize("name", CONTROL.values(), ids=CONTROL)
async def test_an_odd_model_name_in_a_refusal(
    gateway: TestGateway, upstream: Upstream, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request = request_bytes(f'{{"model":"{name}","messages":[]}}'.encode())
    await refusal(gateway, upstream, request, code="invalid_value", param="messages")


async def test_an_integer_of_thousands_of_digits(gateway: TestGateway, upstream: Upstream) -> None:
    """JSON has no limit where Python has one; also where the messages are read for `auto`."""
    for model in ("m", "auto"):
        number = b"9" * 5000
        body = b'{"model":"%s","max_tokens":%s,"messages":[{"role":"user","content":"Hi","n":%s}]}'
        status, _, raw = await gateway.raw_chat(body % (model.encode(), number, number))
        assert status == 200, raw
        assert upstream.bodies[-1].count(number) == 2
