"""What is so of all kinds that speak OpenAI's own dialect: bytes pass as they are, but for edits that are declared."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from proxy.domain.errors import StreamBroken
from proxy.infrastructure.chat_completion.dialect import UsageInStreams
from tests.harness import Answering, cut, says, streams
from tests.providers.conftest import HELLO, Connect, Provider, Streamed, is_last
from tests.providers.kinds import API_KEY
from tests.providers.openai_upstreams import DONE, OPENAI_KINDS, USAGE, event

BY_NAME = {kind.name: kind for kind in OPENAI_KINDS}
ALWAYS = ("openrouter", "mistral")  # tell usage unasked
ODD = (
    b'{ "b":1.0, "model":"asked-model",\t"messages": [{"role": "user","content":"\\ud800 \\u017e"}],"a":1e400,'
    b'"seed":9007199254740993,"unheard_of":{"y":[ ]},"x":null%s}\n'
)
BIG = (
    b' {"choices" : [{"message":{"content":"\\ud83d"}}],"z":0.10,"big":123456789012345678901234567890,'
    b'"model":"m","usage":{"prompt_tokens":3,"completion_tokens":4},"usage_":null}\r\n'
)
ODD_EVENTS = [
    b": comment\n\n",
    event({"content": "a"}, unheard_of={"n": 1}).replace(b'"n":1', b'"n":123456789012345678901234567890'),
    event({"content": "b"}).replace(b"\n\n", b"\r\n\r\n"),
    b'event: message\nid: 7\ndata: {"choices": [ {"index":0,"delta":{"content":"c"}} ],\ndata: "x":0.10}\n\n',
    event({}, "stop"),
]
USAGE_EVENT = event(None, usage=USAGE)


@pytest.fixture(params=OPENAI_KINDS, ids=lambda kind: kind.name)
async def relaying(request: pytest.FixtureRequest, connect_kind: Connect) -> Provider:
    """Each kind that speaks OpenAI's own dialect."""
    return await connect_kind(request.param)


@pytest.fixture
async def openai(connect_kind: Connect) -> Provider:
    """OpenAI itself."""
    return await connect_kind(BY_NAME["openai"])


def at_once(*events: bytes) -> Answering:
    """All events in one write."""
    return streams(b"".join(events), generation_header=None)


async def test_a_request_and_its_answer_pass_byte_for_byte(relaying: Provider) -> None:
    relaying.upstream.answer(says(BIG))
    body, metadata = await relaying.complete(ODD % b"")
    assert relaying.upstream.bodies == [ODD % b""]
    assert relaying.upstream.paths == [f"{relaying.kind.base_path}/chat/completions"]
    assert body == BIG
    assert (metadata["input_tokens"], metadata["output_tokens"]) == (3, 4)


async def test_of_a_streaming_request_nothing_changes_but_the_option(relaying: Provider) -> None:
    relaying.upstream.answer(at_once(*ODD_EVENTS, USAGE_EVENT, DONE))
    sent = ODD % b',"stream":true'
    streamed = await relaying.stream(sent)
    (got,) = relaying.upstream.bodies
    if relaying.kind.name in ALWAYS:
        assert got == sent
        assert streamed.data == b"".join([*ODD_EVENTS, USAGE_EVENT, DONE])
    else:
        assert got == b'{"stream_options":{"include_usage":true},' + sent[1:]
        assert streamed.data == b"".join([*ODD_EVENTS, DONE])
    assert streamed.metadata[-1]["output_tokens"] == USAGE["completion_tokens"]


async def test_a_client_that_asks_itself_gets_every_byte(openai: Provider) -> None:
    openai.upstream.answer(at_once(*ODD_EVENTS, USAGE_EVENT, DONE))
    sent = ODD % b',"stream":true,"stream_options":{"include_usage" : true}'
    streamed = await openai.stream(sent)
    assert openai.upstream.bodies == [sent]
    assert streamed.data == b"".join([*ODD_EVENTS, USAGE_EVENT, DONE])


# How usage is told


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (b"null", b'{"include_usage":true}'),
        (b"{}", b'{"include_usage":true}'),
        (b'{"include_usage": false }', b'{"include_usage": true }'),
        (b'{"include_usage":null,"x":1.0}', b'{"include_usage":true,"x":1.0}'),
        (b'{ "include_obfuscation":false}', b'{"include_usage":true, "include_obfuscation":false}'),
    ],
)
async def test_options_that_do_not_ask_are_made_to(openai: Provider, options: bytes, asked: bytes) -> None:
    openai.upstream.answer(at_once(event({"content": "a"}), event({}, "stop"), USAGE_EVENT, DONE))
    body = b'{"model":"m","messages":[{"role":"user","content":"stream_options"}],"stream":true,"stream_options": %s}'
    streamed = await openai.stream(body % options)
    assert openai.upstream.bodies == [body % asked]
    assert not any(chunk.get("usage") for chunk in streamed.chunks)


async def test_words_that_look_like_the_option_are_none(openai: Provider) -> None:
    openai.upstream.answer(at_once(event({"content": "a"}), event({}, "stop"), USAGE_EVENT, DONE))
    body = {**HELLO, "messages": [{"role": "user", "content": '"stream_options":{"include_usage":true}'}]}
    await openai.stream(body)
    got = json.loads(openai.upstream.bodies[0])
    assert got == {**body, "stream": True, "stream_options": {"include_usage": True}}


async def test_options_of_another_form_are_left_for_the_server_to_refuse(openai: Provider) -> None:
    openai.upstream.answer(at_once(event({"content": "a"}), event({}, "stop"), USAGE_EVENT, DONE))
    body = b'{"model":"m","messages":[],"stream":true,"stream_options":[1]}'
    streamed = await openai.stream(body)
    assert openai.upstream.bodies == [body]
    assert streamed.chunks[-1]["usage"] == USAGE


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("framed", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [3, 64, 100_000])
async def test_the_usage_chunk_is_found_however_it_is_framed_and_split(
    openai: Provider, framed: bytes, size: int
) -> None:
    seen = b"".join([b": comment\n\n", event({"content": "a"}, usage=None), event({}, "stop", usage=None)])
    spaced = json.dumps({"choices": [], "usage": USAGE}, indent=1).replace("\n", "\ndata: ").encode()
    whole = seen + b"data: " + spaced + b"\n\n" + DONE
    openai.upstream.answer(streams(*_split(whole.replace(b"\n", framed), size)))
    streamed = await openai.stream()
    assert streamed.data == (seen + DONE).replace(b"\n", framed)
    assert streamed.metadata[-1]["input_tokens"] == USAGE["prompt_tokens"]


async def test_null_usage_in_other_chunks_stays(openai: Provider) -> None:
    """OpenAI's schema has it there; to take it out would be to rewrite every chunk."""
    openai.upstream.answer(openai.kind.streams(["a", "b"]))
    streamed = await openai.stream()
    assert [chunk.get("usage", "none") for chunk in streamed.chunks] == [None, None, "none"]


@pytest.mark.parametrize(
    "kept",
    [
        event(None, prompt_filter_results=[{"prompt_index": 0}]),
        event(None, usage=None),
        event({"content": ""}, usage=USAGE),
        event({"content": '"choices":[] "usage":{}'}),
        b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"no"}}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1\n\n',
        b': "choices":[] "usage":{}\n\n',
    ],
)
async def test_what_is_not_the_usage_chunk_stays(openai: Provider, kept: bytes) -> None:
    openai.upstream.answer(at_once(event({"content": "a"}), kept, event({}, "stop"), USAGE_EVENT, DONE))
    streamed = await openai.stream()
    assert streamed.data == b"".join([event({"content": "a"}), kept, event({}, "stop"), DONE])


async def test_usage_in_every_chunk_is_read_from_the_last(openai: Provider) -> None:
    """vLLM's continuous_usage_stats: the chunks have choices, so they stay."""
    counts = [{**USAGE, "completion_tokens": n} for n in range(3)]
    events = [event({"content": "x"}, usage=usage) for usage in counts]
    openai.upstream.answer(at_once(*events, event({}, "stop", usage=USAGE), USAGE_EVENT, DONE))
    streamed = await openai.stream()
    assert streamed.data == b"".join([*events, event({}, "stop", usage=USAGE), DONE])
    assert streamed.metadata[-1]["output_tokens"] == USAGE["completion_tokens"]


async def test_a_usage_chunk_that_comes_with_the_last_piece_of_a_huge_event_is_found(openai: Provider) -> None:
    """An event of more than a megabyte passes in parts."""
    huge = event({"content": "x" * 3_000_000})
    openai.upstream.answer(streams(*_split(huge + event({}, "stop") + USAGE_EVENT + DONE, 400_000)))
    streamed = await openai.stream()
    assert streamed.data == huge + event({}, "stop") + DONE


async def test_usage_after_done_is_no_concern(openai: Provider) -> None:
    openai.upstream.answer(at_once(event({"content": "a"}), event({}, "stop"), DONE, b": bye\n\n"))
    assert (await openai.stream()).data.endswith(DONE + b": bye\n\n")


async def test_a_retried_stream_asks_each_time(openai: Provider) -> None:
    openai.upstream.answer(openai.kind.fails(503, "later"), openai.kind.streams(["a"]))
    await openai.stream()
    assert [json.loads(body)["stream_options"] for body in openai.upstream.bodies] == [{"include_usage": True}] * 2


async def test_a_server_that_never_tells_usage_is_not_asked_nor_complained_of(
    connect_kind: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    provider = await connect_kind(BY_NAME["openai"], usage_in_streams=UsageInStreams.NEVER)
    provider.upstream.answer(provider.kind.streams(["a"]))
    streamed = await provider.stream()
    assert "stream_options" not in json.loads(provider.upstream.bodies[0])
    assert "input_tokens" not in streamed.metadata[-1]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# How streams end


@pytest.fixture
async def unmarked(connect_kind: Connect) -> Provider:
    """A server that sends no `[DONE]`."""
    return await connect_kind(BY_NAME["tgi"], done_marker=False)


@pytest.mark.parametrize("last_end", [b"\n\n", b"\n", b""])
async def test_without_a_marker_a_finish_reason_and_a_clean_end_are_the_end(
    unmarked: Provider, last_end: bytes
) -> None:
    """Both OpenAI SDKs take it for success; a `[DONE]` of ours would be an invention."""
    events = [event({"content": "a"}), event({}, "stop"), event(None, usage=USAGE, x=1).rstrip() + last_end]
    unmarked.upstream.answer(streams(*events))
    streamed = await unmarked.stream({**HELLO, "stream_options": {"include_usage": True}})
    assert streamed.data == b"".join(events)
    assert [is_last(metadata) for metadata in streamed.metadata].count(True) == 1
    assert is_last(streamed.metadata[-1])
    assert streamed.metadata[-1]["input_tokens"] == USAGE["prompt_tokens"]


@pytest.mark.parametrize("last_end", [b"\n\n", b"\n", b""])
async def test_the_usage_chunk_is_taken_out_at_the_very_end_too(unmarked: Provider, last_end: bytes) -> None:
    events = [event({"content": "a"}), event({}, "stop")]
    unmarked.upstream.answer(streams(*events, USAGE_EVENT.rstrip() + last_end))
    streamed = await unmarked.stream()
    assert streamed.data == b"".join(events)
    assert streamed.metadata[-1]["input_tokens"] == USAGE["prompt_tokens"]


async def test_a_marker_that_comes_all_the_same_passes(unmarked: Provider) -> None:
    unmarked.upstream.answer(unmarked.kind.streams(["a"]))
    assert (await unmarked.stream()).data.endswith(DONE)


@pytest.mark.parametrize("end", [b"", b'data: {"choices":[{"index":0,"delta":{"content":"b'])
@pytest.mark.parametrize("unfinished", [None, ""])
async def test_without_a_marker_an_end_before_any_finish_reason_is_a_cut(
    unmarked: Provider, unfinished: str | None, end: bytes
) -> None:
    first = event({"content": "a"}, unfinished)
    unmarked.upstream.answer(streams(first, end))
    streamed = Streamed()
    with pytest.raises(StreamBroken, match="Acme ended before it was complete"):
        await unmarked.stream(into=streamed)
    assert streamed.data == first


async def test_without_a_marker_a_broken_connection_is_a_cut_even_after_a_finish_reason(unmarked: Provider) -> None:
    unmarked.upstream.answer(streams(event({"content": "a"}), event({}, "stop"), then=cut))
    with pytest.raises(StreamBroken):
        await unmarked.stream()


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
async def test_an_error_event_at_the_end_is_relayed_and_not_told_again(unmarked: Provider, end: bytes) -> None:
    error = b'data: {"error":{"message":"model crashed"}}' + end
    unmarked.upstream.answer(streams(event({"content": "a"}), event({}, "stop"), error))
    streamed = Streamed()
    with pytest.raises(StreamBroken, match="model crashed") as caught:
        await unmarked.stream(into=streamed)
    assert caught.value.told
    assert error in streamed.data
    assert streamed.data.endswith(b"\n\n")


async def test_with_a_marker_a_clean_end_without_it_is_a_cut(openai: Provider) -> None:
    openai.upstream.answer(streams(event({"content": "a"}), event({}, "stop")))
    with pytest.raises(StreamBroken):
        await openai.stream()


async def test_a_marker_that_no_blank_line_follows_is_one(openai: Provider) -> None:
    openai.upstream.answer(streams(event({"content": "a"}), event({}, "stop"), b"data: [DONE]"))
    streamed = await openai.stream()
    assert streamed.data.endswith(b"data: [DONE]")
    assert is_last(streamed.metadata[-1])


# Headers


async def test_the_operators_headers_are_sent_and_win(connect_kind: Connect) -> None:
    headers = {
        "OpenAI-Project": "proj_1",
        "user-agent": "acme/1",
        "http-referer": "https://ours",
        "accept-encoding": "br",
    }
    provider = await connect_kind(BY_NAME["openrouter"], headers=headers)
    await provider.complete(HTTP_Referer="https://theirs", X_Title="App")
    got = {name.lower(): value for name, value in provider.upstream.headers[0].items()}
    assert (got["openai-project"], got["user-agent"], got["http-referer"]) == ("proj_1", "acme/1", "https://ours")
    assert (got["x-title"], got["accept-encoding"]) == ("App", "identity")


async def test_a_secret_in_the_operators_headers_is_never_shown(connect_kind: Connect) -> None:
    provider = await connect_kind(BY_NAME["openai"], headers={"X-Api-Key": "hush-hush", "X-Team": "blue"})
    provider.upstream.answer(provider.kind.fails(400, "key hush-hush of team blue"))
    with pytest.raises(Exception, match=r"key \[redacted\] of team blue"):
        await provider.complete()


async def test_a_token_may_take_the_keys_place(connect_kind: Connect) -> None:
    """As one of Microsoft Entra does at Azure: it is a header of the operator's, and there is no key."""
    provider = await connect_kind(BY_NAME["azure"], api_key="", headers={"Authorization": f"Bearer {API_KEY}"})
    await provider.complete()
    got = {name.lower(): value for name, value in provider.upstream.headers[0].items()}
    assert got["authorization"] == f"Bearer {API_KEY}"
    assert "api-key" not in got


async def test_without_a_key_none_is_sent(connect_kind: Connect) -> None:
    provider = await connect_kind(BY_NAME["vllm"], api_key="")
    await provider.complete()
    assert not {"authorization", "api-key"} & {name.lower() for name in provider.upstream.headers[0]}


async def test_attribution_goes_to_openrouter_alone(relaying: Provider) -> None:
    await relaying.complete(HTTP_Referer="https://app", X_Title="App", X_OpenRouter_Title="App", tracestate="a=1")
    got = {name.lower() for name in relaying.upstream.headers[0]}
    assert "tracestate" in got
    expected = {"http-referer", "x-title", "x-openrouter-title"} if relaying.kind.name == "openrouter" else set()
    assert got & {"http-referer", "x-title", "x-openrouter-title"} == expected


async def test_a_generation_is_named_by_openrouters_header_alone(relaying: Provider) -> None:
    """Another server's header of that name is none of ours: the answer's id is the name."""

    async def answering(_request: web.Request) -> web.Response:
        return web.json_response({"id": "c-1", "choices": [], "usage": USAGE}, headers={"X-Generation-Id": "gen-9"})

    relaying.upstream.answer(answering)
    call, history, settings = relaying.call()
    (content,) = await relaying.service.get_chat_message_contents(history, settings)
    named = relaying.kind.name == "openrouter"
    assert call.generation_id == ("gen-9" if named else None)
    assert ("x-generation-id" in content.metadata["headers"]) is named


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("openai", "openai-processing-ms"),
        ("azure", "apim-request-id"),
        ("mistral", "x-ratelimit-remaining-tokens-minute"),
        ("together", "x-tokenlimit-remaining"),
        ("groq", "x-ratelimit-remaining-tokens"),
    ],
)
async def test_a_kinds_own_headers_come_back_and_others_do_not(connect_kind: Connect, kind: str, header: str) -> None:
    provider = await connect_kind(BY_NAME[kind])
    provider.upstream.answer(says({"choices": [], "usage": USAGE}, headers={header: "7", "openai-organization": "org"}))
    _, metadata = await provider.complete()
    assert metadata["headers"] == {header: "7"}


async def test_a_base_url_keeps_its_query(connect_kind: Connect) -> None:
    provider = await connect_kind(BY_NAME["azure"])
    base = provider.service.service_url()
    assert base is not None
    other = await connect_kind(BY_NAME["azure"], base_url=f"{base}?api-version=preview")
    await other.complete()
    assert provider.upstream.paths == ["/openai/v1/chat/completions?api-version=preview"]
