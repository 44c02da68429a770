"""What passes through the running gateway: every byte of requests and answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from io import BytesIO

import pytest
from aiohttp import web

from tests.gateway.raw_http import chunked, connected, request_bytes
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, chunk, ending, fails, says, streams

MODEL = b'"model":"z-ai/glm-4.6"'
MESSAGES = b'"messages":[{"role":"user","content":"Hello"}]'

# Every field that OpenAI and OpenRouter document beside `model`, `messages` and `stream`, as clients send it.
DOCUMENTED: dict[str, bytes] = {
    "temperature": b"0.70",
    "top_p": b"1e-1",
    "seed": b"9007199254740993",
    "n": b"1",
    "stop": b'["\\n\\n", "END"]',
    "presence_penalty": b"-2.0",
    "frequency_penalty": b"0",
    "logit_bias": b'{"50256": -100, "1": 100}',
    "max_completion_tokens": b"512",
    "max_tokens": b"256",
    "response_format": b'{"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": {}}}',
    "modalities": b'["text", "audio"]',
    "audio": b'{"voice": "alloy", "format": "wav"}',
    "prediction": b'{"type": "content", "content": "x"}',
    "verbosity": b'"low"',
    "logprobs": b"true",
    "top_logprobs": b"20",
    "tools": b'[{"type": "function", "function": {"name": "f", "strict": null}}, {"type": "custom", "custom": {}}]',
    "tool_choice": b'{"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}',
    "parallel_tool_calls": b"false",
    "functions": b'[{"name": "f"}]',
    "function_call": b'{"name": "f"}',
    "reasoning_effort": b'"xhigh"',
    "stream_options": b'{"include_usage": false, "include_obfuscation": true}',
    "service_tier": b'"flex"',
    "store": b"false",
    "metadata": b'{"a": "b"}',
    "user": b'"u-1"',
    "safety_identifier": b'"s"',
    "prompt_cache_key": b'"k"',
    "prompt_cache_retention": b'"24h"',
    "prompt_cache_options": b'{"x": 1}',
    "web_search_options": b"{}",
    "moderation": b'{"input": true}',
    "models": b'["a/b", "c/d"]',
    "route": b'"fallback"',
    "provider": b'{"order": ["X"], "allow_fallbacks": false, "sort": {"by": "price"}, "max_price": {"prompt": 0.1}}',
    "transforms": b'["middle-out"]',
    "plugins": b'[{"id": "web", "max_results": 3}]',
    "usage": b'{"include": true}',
    "reasoning": b'{"effort": "high", "exclude": false}',
    "include_reasoning": b"true",
    "top_k": b"40",
    "min_p": b"0.05",
    "top_a": b"0.1",
    "repetition_penalty": b"1.1",
    "session_id": b'"s-1"',
    "trace": b'{"id": "t"}',
    "debug": b'{"echo_upstream_body": true}',
    "image_config": b'{"aspect_ratio": "16:9"}',
    "cache_control": b'{"type": "ephemeral"}',
    "preset": b'"p"',
    "stop_server_tools_when": b"[]",
    "prompt": b'"instead of messages"',
    "a_field_of_next_year": b'{"deep": [[{}], null]}',
    "": b"0",
}
NULLABLE = [name for name in DOCUMENTED if name]

CONVERSATION = rb"""[
 {"role":"developer","content":"d","name":null},
 {"role":"system","content":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]},
 {"role":"user","name":"ann","content":[
  {"type":"text","text":"Look:"},
  {"type":"image_url","image_url":{"url":"https://example.org/a.png","detail":"high"}},
  {"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}},
  {"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0="}},
  {"type":"video_url","video_url":{"url":"https://example.org/a.mp4"}},
  {"type":"part_of_next_year","x":1e400}]},
 {"role":"assistant","content":null,"refusal":null,"audio":{"id":"a"},
  "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}],
  "reasoning":"r","reasoning_details":[{"type":"reasoning.encrypted","data":"AAAA//\/=","signature":"\u0073ig","index":0}]},
 {"role":"tool","tool_call_id":"c","content":"4"}, {"role":"function","name":"f","content":"4"},
 {"role":"assistant"} ]"""

ODD: dict[str, bytes] = {
    "integers beyond 2^53": b'{%s,%s,"x":[9007199254740993,-9223372036854775809,18446744073709551617]}'
    % (MODEL, MESSAGES),
    "big and precise floats": b'{%s,%s,"x":[1e400,-1E+400,1e-400,0.1000000000000000055511151231257827,1.10,-0.0]}'
    % (MODEL, MESSAGES),
    "temperature as precise as it gets": b'{%s,%s,"temperature":0.1000000000000000055511151231257827}'
    % (MODEL, MESSAGES),
    "a hundred levels": b'{%s,%s,"x":%s}' % (MODEL, MESSAGES, b'{"a":[' * 50 + b"1" + b"]}" * 50),
    "as deep as is taken": b'{%s,%s,"x":%s}' % (MODEL, MESSAGES, b"[" * 255 + b"]" * 255),
    "a schema in messages": b'{%s,"messages":[{"role":"user","content":"a","x":%s}]}'
    % (MODEL, b'{"properties":' * 100 + b"{}" + b"}" * 100),
    "duplicate keys": b'{%s,%s,"x":1,"x":2,"y":{"a":1,"a":{"a":2,"a":3}}}' % (MODEL, MESSAGES),
    "duplicate known keys": b'{"model":"other",%s,"messages":[],%s,"temperature":1,"temperature":2}'
    % (MODEL, MESSAGES),
    "unicode": '{"model":"m","messages":[{"role":"user","content":"žluť 🐎 \u2028\u00a0\ufeff"}],"ключ":"é"}'.encode(),
    "escapes": rb'{"model":"z-ai\/glm-4.6","messages":[{"role":"user","content":"\u00e9\/\ud83d\ude00\u0000\b"}]}',
    "escaped keys": rb'{"mod\u0065l":"z-ai/glm-4.6","\u006dessages":[{"r\u006fle":"user","content":"a"}]}',
    "lone surrogate in a message": rb'{"model":"m","messages":[{"role":"user","content":"a\ud800b\uDFFF"}]}',
    "lone surrogate in a key": rb'{"model":"m","messages":[{"role":"user","content":"a","\udead":1}],"\ud83d":"x"}',
    "lone surrogate in a field": rb'{"model":"m","user":"\ude00\ud83d","messages":[{"role":"user","content":"a"}]}',
    "backslashes before it": rb'{"model":"m","x":"\\ud800 \\\ud800 \\\\ud8","messages":[{"role":"user","content":""}]}',
    "key order": b'{"z":1,%s,"a":2,%s,"m":3}' % (MESSAGES, MODEL),
    "white space": b'\r\n\t {\n "model"\t:\r"z-ai/glm-4.6" , "messages" : [ {"role" : "user","content" :"" } ]\n}\n ',
    "every kind of message": b'{%s,"messages":%s}' % (MODEL, CONVERSATION),
    "every field at once": b"{%s,%s,%s}"
    % (MODEL, MESSAGES, b", ".join(b'"%s" :%s' % (name.encode(), value) for name, value in DOCUMENTED.items())),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_request_reaches_the_upstream_byte_for_byte(
    gateway: TestGateway, upstream: Upstream, body: bytes, streamed: bool
) -> None:
    if streamed:
        body = body.replace(b"{", b'{"stream":true,', 1)
        upstream.answer(streams(chunk("a"), *ending()))
    status, _, answer = await gateway.raw_chat(body)
    assert status == 200, answer
    assert upstream.bodies == [body]


async def test_every_documented_field_reaches_the_upstream_unchanged(gateway: TestGateway, upstream: Upstream) -> None:
    """One at a time, also when it is null."""
    bodies = [b'{%s,%s,"%s": %s}' % (MODEL, MESSAGES, name.encode(), value) for name, value in DOCUMENTED.items()]
    bodies += [b'{%s,%s,"%s":null}' % (MODEL, MESSAGES, name.encode()) for name in NULLABLE]
    for body in bodies:
        status, _, answer = await gateway.raw_chat(body)
        assert status == 200, (body, answer)
    assert upstream.bodies == bodies


async def test_nothing_is_added_to_a_streamed_request(gateway: TestGateway, upstream: Upstream) -> None:
    """No `stream_options` for the ledger's sake: the upstream reports its usage unasked."""
    upstream.answer(streams(chunk("a"), *ending()))
    body = b'{"stream" : true,%s,%s}' % (MODEL, MESSAGES)
    await gateway.raw_chat(body)
    assert upstream.bodies == [body]


async def test_every_attempt_sends_the_same_bytes(gateway: TestGateway, upstream: Upstream) -> None:
    """Also large ones, which are sent in pieces."""
    upstream.answer(fails(503), fails(429), says())
    body = json.dumps({**HELLO, "user": "u" * 3_000_000}).encode()
    assert await _status_of_large(gateway, body) == 200
    assert upstream.bodies == [body] * 3


async def _status_of_large(gateway: TestGateway, body: bytes) -> int:
    """The status of an answer to a body that aiohttp's client would not take as bytes."""
    headers = {"Content-Type": "application/json"}
    async with gateway.http.post(gateway.url / "v1/chat/completions", data=BytesIO(body), headers=headers) as response:
        return response.status


@pytest.mark.parametrize("model", ["z-ai/glm-4.6", "auto"])
async def test_twenty_megabytes_of_picture_reach_the_upstream(
    gateway: TestGateway, upstream: Upstream, model: str
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 2_500_000}}
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": [picture]}]}).encode()
    assert len(body) > 20_000_000
    assert await _status_of_large(gateway, body) == 200
    assert upstream.bodies == [body.replace(b'"auto"', b'"z-ai/glm-4.6"')]


async def test_a_chunked_request(gateway: TestGateway, upstream: Upstream) -> None:
    """In pieces of any size, inside characters too; the upstream gets a plain one."""
    body = '{"model":"m","messages":[{"role":"user","content":"žluť 🐎"}]}'.encode()
    head = request_bytes(None, b"Content-Type: application/json", b"Transfer-Encoding: chunked")
    async with connected(gateway.url) as connection:
        await connection.send(head)
        for at in range(0, len(body), 7):
            await connection.send(chunked(body[at : at + 7])[:-5])
        await connection.send(chunked())
        assert (await connection.answer()).status == 200
        await connection.send(head + chunked(body[:1], body[1:]))
        assert (await connection.answer()).status == 200
    assert upstream.bodies == [body] * 2
    assert all("Transfer-Encoding" not in headers for headers in upstream.headers)


async def test_a_request_from_a_generator(gateway: TestGateway, upstream: Upstream) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{" + MODEL
        await asyncio.sleep(0)
        yield b"," + MESSAGES + b"}"

    headers = {"Content-Type": "application/json"}
    async with gateway.http.post(gateway.url / "v1/chat/completions", data=pieces(), headers=headers) as response:
        assert response.status == 200
    assert upstream.bodies == [b"{%s,%s}" % (MODEL, MESSAGES)]


async def test_a_client_that_expects_to_be_told_to_continue(gateway: TestGateway, upstream: Upstream) -> None:
    """As curl does for large bodies."""
    body = b"{%s,%s}" % (MODEL, MESSAGES)
    request = request_bytes(body, b"Expect: 100-continue")
    async with connected(gateway.url) as connection:
        await connection.send(request[: -len(body)])
        assert (await connection.answer()).status == 100
        await connection.send(body)
        assert (await connection.answer()).status == 200
    assert upstream.bodies == [body]
    assert "Expect" not in upstream.headers[0]


WHOLE = json.dumps(COMPLETION).encode()
ANSWERS: dict[str, bytes] = {
    "unknown fields": json.dumps(
        {**COMPLETION, "openrouter_metadata": {"a": [None]}, "of_next_year": {"x": 1}, "system_fingerprint": None}
    ).encode(),
    "odd spacing": WHOLE.replace(b", ", b" ,\r\n\t").replace(b": ", b" : ") + b" \n",
    "leading white space": b"\n   \n\n\r\n" * 50 + WHOLE,
    "lone surrogates": WHOLE.replace(b"Hi there!", rb"\ud800 \uDFFF \\ud800 \ud83d\ude00"),
    "lone surrogate in a key": WHOLE[:-1] + rb',"\ud800":1}',
    "raw unicode": WHOLE.replace(b"Hi there!", "žluťoučký 🐎 日本 \u2028".encode()),
    "precise and big numbers": WHOLE[:-1]
    + b',"x":[1e400,0.1000000000000000055511151231257827,18446744073709551617,1.0]}',
    "duplicate keys": WHOLE[:-1] + b',"x":1,"x":2}',
    "deep nesting": WHOLE[:-1] + b',"x":' + b"[" * 200 + b"]" * 200 + b"}",
    "no usage": json.dumps({"id": "gen-1", "choices": [{"message": {"role": "assistant", "content": "a"}}]}).encode(),
    "null usage and error": json.dumps({**COMPLETION, "usage": None, "error": None}).encode(),
    "no choice": json.dumps({**COMPLETION, "choices": []}).encode(),
    "error of one choice": json.dumps(
        {**COMPLETION, "choices": [{**COMPLETION["choices"][0], "finish_reason": "error", "error": {"code": 502}}]}
    ).encode(),
    "tool calls": json.dumps(
        {
            **COMPLETION,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                        "reasoning_details": [{"type": "reasoning.encrypted", "data": "AAA//="}],
                    },
                    "finish_reason": "tool_calls",
                    "native_finish_reason": "tool_use",
                }
            ],
        }
    ).encode(),
    "five megabytes": json.dumps({**COMPLETION, "images": ["A" * 5_000_000]}).encode(),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_comes_back_byte_for_byte(gateway: TestGateway, upstream: Upstream, answer: bytes) -> None:
    upstream.answer(says(answer))
    status, headers, raw = await gateway.raw_chat()
    assert status == 200
    assert raw == answer
    assert headers["content-type"].startswith("application/json")
    assert headers["content-length"] == str(len(answer))


async def test_a_cost_is_booked_with_all_its_digits(gateway: TestGateway, upstream: Upstream) -> None:
    cost = b"0.000000000123"
    upstream.answer(says(WHOLE.replace(b"0.00123", cost)))
    _, headers, _ = await gateway.raw_chat()
    assert Decimal(headers["x-gateway-cost-usd"]) == Decimal(cost.decode())
    row = await gateway.row()
    assert row.reported_cost is not None
    assert row.reported_cost.usd == Decimal(cost.decode())


async def test_a_compressed_answer_comes_back_plain(gateway: TestGateway, upstream: Upstream) -> None:
    """The upstream is asked not to compress; one that does is understood."""

    async def compressing(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=gzip.compress(WHOLE), headers=headers)

    upstream.answer(compressing)
    status, headers, raw = await gateway.raw_chat(accept_encoding="gzip, deflate")
    assert (status, raw) == (200, WHOLE)
    assert "content-encoding" not in headers
