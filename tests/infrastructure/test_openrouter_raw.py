"""OpenRouterChatCompletion as the gateway uses it: a raw request in, raw bytes out."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from proxy.application.raw_call import LazyHistory, RawSettings
from proxy.application.upstream import IS_ALL, IS_LAST, UpstreamCall
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import TransientUpstreamError
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from tests.harness import Upstream, chunk, ending, fails, says, stall, streams
from tests.infrastructure.conftest import Connect
from tests.infrastructure.test_posting import Raw

FAR = 1e9
MESSAGES = rb'[{"role": "user","content":"\ud800 \u017e"}]'
BODY = (
    b'{ "b":1.0, "model":"z-ai/glm-4.6",\t"messages":' + MESSAGES + b',"a":1e400,"seed":9007199254740993,'
    b'"x":null,"x":{"y":[ ]}}\n'
)
ANSWER = (
    rb' {"choices" : [{"message":{"content":"\ud83d"}}],"z":0.10,"big":123456789012345678901234567890,'
    b'"model":"m","usage":{"prompt_tokens":3,"completion_tokens":4,"cost":1e-9},"usage_":null}\r\n'
)


def raw_call(*, stream: bool = False, **headers: str) -> tuple[UpstreamCall, LazyHistory, RawSettings]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    call = UpstreamCall(body=BODY, model="z-ai/glm-4.6", deadline=FAR, headers=named)
    request = ChatRequest(body=BODY, model="z-ai/glm-4.6", stream=stream, members={"messages": MESSAGES})
    return call, LazyHistory.reading(request), RawSettings.carrying(call, request)


async def test_bytes_go_out_and_come_back_as_they_are(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(says(ANSWER))
    call, history, settings = raw_call()
    (content,) = await service.get_chat_message_contents(history, settings)
    assert upstream.bodies == [BODY]
    assert content.inner_content == ANSWER
    assert (content.metadata["input_tokens"], content.metadata["output_tokens"]) == (3, 4)
    assert content.metadata["cost"] == Decimal("1E-9")
    assert content.metadata["model"] == "m"
    assert call.attempts == 1
    assert call.upstream_seconds > 0


async def test_nothing_is_parsed_or_copied(service: OpenRouterChatCompletion) -> None:
    """The history is never touched, the call that comes to the wire is the very one."""
    call, history, settings = raw_call()
    await service.get_chat_message_contents(history, settings)
    assert "messages" not in history.__dict__
    assert settings.call is call
    assert call.body is BODY
    assert call.attempts == 1


async def test_a_large_body_goes_out_whole_on_every_attempt(
    service: OpenRouterChatCompletion, upstream: Upstream
) -> None:
    upstream.answer(fails(503), fails(503), says())
    body = b'{"model":"m","messages":[],"padding":"' + b"x" * 3_000_000 + b'"}'
    call = UpstreamCall(body=body, model="m", deadline=FAR)
    request = ChatRequest(body=body, model="m", stream=False, members={"messages": b"[]"})
    await service.get_chat_message_contents(LazyHistory.reading(request), RawSettings.carrying(call, request))
    assert upstream.bodies == [body] * 3
    assert call.attempts == 3


async def test_streamed_bytes_come_out_as_they_are(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    """Comments and `[DONE]` too; the last content says that it is, and what it cost."""
    sent = [b": OPENROUTER PROCESSING\n\n", chunk("Hel"), chunk("lo").replace(b"\n", b"\r\n"), *ending()]
    upstream.answer(streams(*sent, pause_seconds=0.01))
    call, history, settings = raw_call(stream=True)
    answer = service.get_streaming_chat_message_contents(history, settings)
    contents = [content async for (content,) in answer]
    assert b"".join(content.inner_content or b"" for content in contents) == b"".join(sent)
    assert upstream.bodies == [BODY]
    assert "messages" not in history.__dict__
    assert [IS_LAST in content.metadata for content in contents] == [False] * (len(contents) - 1) + [True]
    assert contents[-1].metadata["output_tokens"] == 5
    assert call.answer.facts().generation_id == "gen-1"


@pytest.mark.parametrize(
    ("rest", "is_all"),
    [(b"0\r\n\r\n", True), (b"", False), (b"4\r\n: x\n\r\n0\r\n\r\n", True), (b"1\r\n:\r\n0\r\n\r\n", False)],
    ids=["all of it", "its end is still to come", "all of it, with a comment", "half a comment follows"],
)
async def test_a_stream_that_came_in_one_piece_says_that_it_is_all(connect: Connect, rest: bytes, is_all: bool) -> None:
    """Then nobody looks for more of it; what follows `[DONE]` is relayed where there is anything.

    Nor is its generation noted beforehand: the row, which is booked next, has it. That was all with `[DONE]`, by the id
    that chunks have; a header's is noted when it comes, if the body's end is not there.
    """
    said = b"".join([chunk("a"), *ending()])
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw = Raw(head + b"%x\r\n%b\r\n" % (len(said), said) + rest, closes=not rest)
    async with await asyncio.start_server(raw.connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connector = await connect(base_url=f"http://127.0.0.1:{port}/v1")
        service = connector.service
        call, history, settings = raw_call(stream=True)
        told: list[str] = []
        call.on_generation = told.append
        contents = [content async for (content,) in service.get_streaming_chat_message_contents(history, settings)]
    assert contents[0].metadata[IS_LAST]
    assert contents[0].metadata[IS_ALL] is is_all
    assert told == []
    assert call.answer.facts().generation_id == "gen-1"
    followed = {b"4": b": x\n", b"1": b":"}.get(rest[:1], b"")
    assert b"".join(content.inner_content or b"" for content in contents) == said + followed
    await connector.session.close()  # it would keep its connection for a while
    await raw.gone()


async def test_hanging_up_ends_the_upstream_call_at_once(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    """Without waiting for whoever reads the stream: it may be busy with a client that takes nothing."""
    upstream.answer(streams(chunk("a"), then=stall))
    call, history, settings = raw_call(stream=True)
    answer = service.get_streaming_chat_message_contents(history, settings)
    await anext(answer)
    call.hang_up()
    async with asyncio.timeout(10):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.005)
    await answer.aclose()


async def test_only_headers_on_the_list_go_either_way(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(
        says(headers={"X-Generation-Id": "g", "X-RateLimit-Remaining": "7", "Set-Cookie": "a=b", "Via": "x"})
    )
    _, history, settings = raw_call(
        X_Title="App", HTTP_Referer="https://a.example", traceparent="00-1", Cookie="a=b", Authorization="Bearer mine"
    )
    (content,) = await service.get_chat_message_contents(history, settings)
    got = {name.lower(): value for name, value in upstream.headers[0].items()}
    assert (got["x-title"], got["http-referer"], got["traceparent"]) == ("App", "https://a.example", "00-1")
    assert "cookie" not in got
    assert "mine" not in str(got)
    assert content.metadata["headers"] == {"x-generation-id": "g", "x-ratelimit-remaining": "7"}


async def test_attempts_are_counted_also_when_all_fail(service: OpenRouterChatCompletion, upstream: Upstream) -> None:
    upstream.answer(fails(500))
    call, history, settings = raw_call()
    with pytest.raises(TransientUpstreamError):
        await service.get_chat_message_contents(history, settings)
    assert call.attempts == upstream.calls == 4
