"""Payloads of a running gateway: what is stored is what went over the wire, and nobody waits for it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from typing import Any

import pytest
from aiohttp import web

from proxy.application.payloads import Capture, StoredBody
from proxy.bootstrap.storage import migrated_database
from proxy.domain.errors import InvalidValue
from tests.conftest import StartGateway
from tests.harness import HELLO, Upstream, chunk, cut, ending, fails, gateway_over, says, streams
from tests.payloads.conftest import stored_payload, stored_payloads

STREAM = {**HELLO, "stream": True}
CLIENT_KEY = "sk-client-secret-key"


def whole(body: bytes) -> StoredBody:
    return StoredBody(body, len(body), is_truncated=False)


def captures() -> int:
    gc.collect()
    return sum(isinstance(thing, Capture) for thing in gc.get_objects())


async def test_a_plain_exchange_is_stored_byte_by_byte(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="all")
    sent = b'{ "model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Gr\\u00fc\xc3\x9fe"}]}'
    _, _, got = await gateway.raw_chat(sent, x_request_id="mine")
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.request == whole(sent)
    assert payload.response == whole(got)
    assert payload.content_type == "application/json"
    row = await gateway.row()
    assert (payload.id, payload.timestamp) == (row.id, row.timestamp)


async def test_a_stream_is_stored_as_the_client_got_it(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    upstream.answer(streams(b": wait\n\n", *(chunk(f"part {n} ") for n in range(50)), *ending()))
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="all")
    _, _, got = await gateway.raw_chat(STREAM, x_request_id="mine")
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.response == whole(got)
    assert b"part 49" in got
    assert payload.content_type == "text/event-stream"


async def test_a_broken_stream_is_stored_with_the_error_that_ended_it(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    upstream.answer(streams(chunk("so far "), chunk("so good"), then=cut, pause_seconds=0.05))
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="errors")
    _, _, got = await gateway.raw_chat(STREAM, x_request_id="mine")
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.response == whole(got)
    assert b"stream_broken" in got or b"error" in got


async def test_a_stream_that_its_client_left_is_stored_as_far_as_it_went(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(10_000):
            await response.write(chunk(f"{number} "))
            await asyncio.sleep(0.005)
        return response

    upstream.answer(trickle)
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="errors")
    async with gateway.http.post(
        gateway.url / "v1/chat/completions", json=STREAM, headers={"x-request-id": "mine"}
    ) as response:
        seen = await response.content.readline()
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.response is not None
    assert payload.response.body.startswith(seen)
    assert b"[DONE]" not in payload.response.body


async def test_errors_only_stores_failures_with_the_answer_that_told_of_them(
    database_url: str, upstream: Upstream
) -> None:
    upstream.answer(says(), fails(400, message="too hot"))
    async with gateway_over(upstream.url, database_url, llmgateway_store_payloads="errors") as gateway:
        await gateway.raw_chat(x_request_id="good")
        _, _, refused = await gateway.raw_chat(x_request_id="failed")
        _, _, unread = await gateway.raw_chat(b"{not json", x_request_id="unread")
        settings = gateway.settings
    assert await stored_payloads(settings, "good") == []
    (failed,) = await stored_payloads(settings, "failed")
    assert (failed.request, failed.response) == (whole(json.dumps(HELLO).encode()), whole(refused))
    assert b"too hot" in refused
    (bad,) = await stored_payloads(settings, "unread")
    assert (bad.request, bad.response) == (whole(b"{not json"), whole(unread))


async def test_a_body_that_was_not_taken_is_not_stored(database_url: str, upstream: Upstream) -> None:
    async with gateway_over(
        upstream.url, database_url, llmgateway_store_payloads="all", max_body_bytes=2_000
    ) as gateway:
        status, _, got = await gateway.raw_chat(b"x" * 5_000, x_request_id="large")
        settings = gateway.settings
    assert status == 413
    (payload,) = await stored_payloads(settings, "large")
    assert (payload.request, payload.response) == (None, whole(got))


@pytest.mark.parametrize("is_stream", [False, True])
async def test_huge_bodies_are_cut_and_their_length_is_kept(
    start_gateway: StartGateway, database_url: str, upstream: Upstream, is_stream: bool
) -> None:
    noise = os.urandom(450_000).hex()
    if is_stream:
        upstream.answer(streams(*(chunk(noise[n : n + 50_000]) for n in range(0, len(noise), 50_000)), *ending()))
    else:
        upstream.answer(says({"id": "gen-1", "choices": [], "usage": {}, "extra": noise}))
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="all", payload_max_bytes=100_000)
    sent = json.dumps({**HELLO, "stream": is_stream, "metadata": {"x": noise}}).encode()
    _, _, got = await gateway.raw_chat(sent, x_request_id="mine")
    assert len(got) > 900_000
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.request == StoredBody(sent[:100_000], len(sent), is_truncated=True)
    assert payload.response == StoredBody(got[:100_000], len(got), is_truncated=True)


async def test_off_stores_nothing_and_keeps_no_references(database_url: str, upstream: Upstream) -> None:
    seen: list[int] = []

    async def look(_request: web.Request) -> None:
        seen.append(captures())

    stored = {}
    for mode in ("off", "all"):
        upstream.answer(streams(chunk("a"), *ending(), then=look))
        async with gateway_over(upstream.url, database_url, llmgateway_store_payloads=mode) as gateway:
            await gateway.raw_chat(STREAM, x_request_id=mode)
            assert (await gateway.get("/health"))[1]["payloads"]["mode"] == mode
        stored[mode] = len(await stored_payloads(gateway.settings, mode))
    assert seen == [0, 1]
    assert captures() == 0
    assert stored == {"off": 0, "all": 1}


async def test_neither_keys_nor_headers_are_stored(database_url: str, upstream: Upstream) -> None:
    upstream.answer(says(headers={"X-Upstream-Secret": "upstream-header"}))
    async with gateway_over(
        upstream.url,
        database_url,
        llmgateway_store_payloads="all",
        llmgateway_master_key=CLIENT_KEY,
        llmgateway_master_key_calls_models=True,
    ) as gateway:
        await gateway.raw_chat(x_request_id="mine", authorization=f"Bearer {CLIENT_KEY}", x_private="client-header")
        await gateway.raw_chat(x_request_id="stranger", authorization="Bearer wrong")
        settings = gateway.settings
    async with migrated_database(settings) as database:
        (row,) = await database.request_payloads.select()
    (payload,) = await stored_payloads(settings, "mine")
    assert payload.request is not None
    assert payload.response is not None
    everything = str(row).encode() + payload.request.body + payload.response.body
    for secret in (CLIENT_KEY, "sk-or-provider-secret", "upstream-header", "client-header"):
        assert secret.encode() not in everything


async def test_bodies_are_redacted_before_they_are_stored(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    gateway = await start_gateway(
        database_url=database_url,
        llmgateway_store_payloads="all",
        payload_redaction="tests.payloads.redactions:hide_hello",
    )
    await gateway.raw_chat(x_request_id="mine")
    assert b"Hello" in upstream.bodies[0]
    payload = await stored_payload(gateway.settings, "mine")
    assert payload.request is not None
    assert b"Hello" not in payload.request.body
    assert b"[...]" in payload.request.body


async def test_a_failing_redaction_costs_the_payload_and_not_the_request(database_url: str, upstream: Upstream) -> None:
    async with gateway_over(
        upstream.url,
        database_url,
        llmgateway_store_payloads="all",
        payload_redaction="tests.payloads.redactions:fail",
    ) as gateway:
        assert (await gateway.raw_chat(x_request_id="mine"))[0] == 200
        async with asyncio.timeout(10):
            while not (await gateway.get("/health"))[1]["payloads"]["redaction_failures"]:
                await asyncio.sleep(0.02)
        settings = gateway.settings
    assert await stored_payloads(settings, "mine") == []


async def test_a_redaction_that_cannot_be_loaded_stops_the_start(sqlite_url: str, upstream: Upstream) -> None:
    with pytest.raises(InvalidValue, match=r"PAYLOAD_REDACTION.*no_such_module"):
        async with gateway_over(
            upstream.url, sqlite_url, llmgateway_store_payloads="all", payload_redaction="no_such_module:hook"
        ):
            pass


async def test_an_outage_of_the_table_disturbs_no_request_and_ends_well(
    start_gateway: StartGateway, database_url: str, upstream: Upstream
) -> None:
    gateway = await start_gateway(database_url=database_url, llmgateway_store_payloads="all")
    async with migrated_database(gateway.settings) as database:
        await database.request_payloads.raw("ALTER TABLE request_payloads RENAME TO elsewhere")
        answers = await asyncio.gather(*(gateway.raw_chat(x_request_id=f"r{number}") for number in range(20)))
        assert [status for status, _, _ in answers] == [200] * 20
        assert len(await gateway.rows(20)) == 20
        state: dict[str, Any] = {}
        async with asyncio.timeout(10):
            while not state.get("last_error"):
                state = (await gateway.get("/health"))[1]["payloads"]
                await asyncio.sleep(0.02)
        assert state["waiting"] == 20
        assert (await gateway.get("/health/ready"))[0] == 200
        await database.request_payloads.raw("ALTER TABLE elsewhere RENAME TO request_payloads")
    for number in range(20):
        await stored_payload(gateway.settings, f"r{number}")
