"""The orchestrator over a real kernel and the real wire: facts flow to the row, and there is one whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from proxy.application.admission import Admission
from proxy.application.exchange import Exchange
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.runtime import Runtime
from proxy.application.upstream import Answer
from proxy.domain.access.principals import ANONYMOUS
from proxy.domain.budgets import Charge
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import GatewayError, LedgerFull, TokenLimitExceeded
from proxy.domain.request_log import CostSource, RequestStatus, UsageSource
from proxy.domain.values import CostAmount
from proxy.infrastructure.deployments.fleet import Fleet
from tests.application.conftest import FakeLedger, chat_request, complete, relay
from tests.harness import COMPLETION, HELLO, Upstream, chunk, cut, ending, fails, says, stall, streams

GLM, KIMI = "z-ai/glm-4.6", "moonshotai/Kimi-K2-Instruct-0905"
UNKNOWN_PRICE = {key: value for key, value in COMPLETION.items() if key != "usage"} | {
    "model": "nobody/knows",
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}


async def test_facts_flow_from_the_answer_to_the_row(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": 0.00123,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    upstream.answer(says({**COMPLETION, "usage": usage}, headers={"X-Generation-Id": "gen-1"}))
    asked = chat_request()
    answer = await complete(orchestrator, asked, {"X-Title": "App"})
    assert json.loads(answer.body)["usage"] == usage
    assert (answer.model, answer.provider, answer.attempts) == (GLM, "OpenRouter", 1)
    assert (answer.content_type, answer.headers) == ("application/json", {"x-generation-id": "gen-1"})
    assert upstream.bodies == [asked.body]
    assert upstream.headers[0]["X-Title"] == "App"
    row = ledger.row
    assert (row.input_tokens.value, row.output_tokens.value) == (10, 5)
    assert (row.cached_tokens, row.reasoning_tokens) == (4, 2)
    assert row.reported_cost == CostAmount(Decimal("0.00123"))
    assert row.estimated_cost == CostAmount(Decimal("0.000000002"))
    assert (row.usage_source, row.cost_source) == (UsageSource.REPORTED, CostSource.REPORTED)
    assert (row.generation_id, row.provider_name, row.model.value) == ("gen-1", "OpenRouter", GLM)
    assert (row.status, row.attempts, row.was_fallback, row.stream) == (RequestStatus.SUCCESS, 1, False, False)


async def test_an_unknown_price_is_an_unknown_cost(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer(says(UNKNOWN_PRICE))
    await complete(orchestrator, chat_request(model="nobody/knows"))
    row = ledger.row
    assert (row.cost(), row.cost_source) == (None, CostSource.UNKNOWN)
    assert (row.input_tokens.value, row.output_tokens.value) == (7, 3)
    assert [record.__dict__["model"] for record in caplog.records if record.levelno == logging.WARNING] == [
        "nobody/knows"
    ]


async def test_a_missing_usage_is_estimated_from_the_texts_and_marked(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    message = {"role": "assistant", "content": "y" * 80}
    upstream.answer(says({"id": "gen-1", "model": GLM, "choices": [{"index": 0, "message": message}]}))
    await complete(orchestrator, chat_request(messages=[{"role": "user", "content": "x" * 400}]))
    row = ledger.row
    assert (row.usage_source, row.cost_source) == (UsageSource.ESTIMATED, CostSource.COMPUTED)
    assert (row.input_tokens.value, row.output_tokens.value) == (100, 20)


async def test_a_missing_usage_of_a_stream_is_estimated_and_marked(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(streams(chunk("y" * 40), chunk("y" * 40), ending()[0], ending()[2]))
    await relay(orchestrator, chat_request(stream=True, messages=[{"role": "user", "content": "x" * 400}]))
    row = ledger.row
    assert (row.usage_source, row.status) == (UsageSource.ESTIMATED, RequestStatus.SUCCESS)
    assert (row.input_tokens.value, row.output_tokens.value) == (100, 20)


async def test_a_stream_is_booked_before_its_last_bytes_are_given_out(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    sent = [b": OPENROUTER PROCESSING\n\n", chunk("Hel"), chunk("lo"), *ending()]
    upstream.answer(streams(*sent, pause_seconds=0.01))
    asked = chat_request(stream=True)
    rows_when_done: int | None = None
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        exchange.asked(asked)
        stream = await orchestrator.stream(exchange, asked, {})
        assert (stream.answer.model, stream.answer.content_type) == (GLM, "text/event-stream")
        exchange.answering(200)
        received = []
        async for data in stream:
            received.append(data)
            if b"[DONE]" in data:
                rows_when_done = len(ledger.rows)
        await stream.aclose()
    assert b"".join(received) == b"".join(sent)
    assert upstream.bodies == [asked.body]
    assert rows_when_done == 1
    row = ledger.row
    assert (row.status, row.stream, row.output_tokens.value) == (RequestStatus.SUCCESS, True, 5)
    assert row.reported_cost == CostAmount(Decimal("0.00123"))


# Fallback: another model is asked, and it says so everywhere.


async def test_a_fallback_asks_another_model_and_books_it(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(*[fails(503)] * 2, says({**COMPLETION, "model": KIMI}))
    answer = await complete(orchestrator, chat_request(model="auto", x=[1.0]))
    assert [json.loads(body)["model"] for body in upstream.bodies] == [GLM] * 2 + [KIMI]
    assert all(
        json.loads(body) == {**HELLO, "model": json.loads(body)["model"], "x": [1.0]} for body in upstream.bodies
    )
    assert answer.model == KIMI
    row = ledger.row
    assert (row.requested_model, row.model.value, row.was_fallback, row.attempts) == ("auto", KIMI, True, 3)
    assert row.estimated_cost == CostAmount(Decimal("0.00000001"))


async def test_a_stream_falls_back_before_its_first_chunk(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(*[streams(b": hm\n\n", then=cut)] * 2, streams(chunk("a", model=KIMI), *ending()))
    raw = await relay(orchestrator, chat_request(model="auto", stream=True))
    assert raw == b"".join([chunk("a", model=KIMI), *ending()])
    assert (ledger.row.model.value, ledger.row.was_fallback, ledger.row.attempts) == (KIMI, True, 3)


async def test_a_named_model_is_never_replaced(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(fails(503))
    with pytest.raises(GatewayError):
        await complete(orchestrator, chat_request(model=GLM))
    assert {json.loads(body)["model"] for body in upstream.bodies} == {GLM}
    assert (ledger.row.model.value, ledger.row.was_fallback) == (GLM, False)


# One row, whatever happens.


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_one_row_for_an_error(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger, status: int, stream: bool
) -> None:
    upstream.answer(fails(status))
    asked = chat_request(stream=stream)

    async def serve() -> None:
        with orchestrator.exchange("req-1", lambda: True) as exchange:
            exchange.asked(asked)
            try:
                await (orchestrator.stream if stream else orchestrator.complete)(exchange, asked, {})
            except GatewayError as error:
                exchange.failed(error, status)
                raise

    with pytest.raises(GatewayError):
        await serve()
    row = ledger.row
    assert (row.status, row.http_status, row.error_type) == (RequestStatus.UPSTREAM_ERROR, status, f"http_{status}")
    assert (row.attempts, row.usage_source, row.cost()) == (4 if status == 503 else 1, UsageSource.NONE, None)


@pytest.mark.parametrize("gone", [True, False], ids=["hung up", "stopped"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_one_row_for_a_request_that_is_cancelled(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger, stream: bool, gone: bool
) -> None:
    async def never(_request: Any) -> Any:
        await stall(_request)

    upstream.answer(never)
    asked = chat_request(stream=stream)

    async def serve() -> None:
        with orchestrator.exchange("req-1", lambda: gone) as exchange:
            exchange.asked(asked)
            await (orchestrator.stream if stream else orchestrator.complete)(exchange, asked, {})

    task = asyncio.create_task(serve())
    async with asyncio.timeout(10):
        while upstream.calls == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while upstream.cancelled == 0:
            await asyncio.sleep(0.005)
    expected = RequestStatus.CLIENT_DISCONNECTED if gone else RequestStatus.INTERRUPTED
    assert (ledger.row.status, ledger.row.attempts, ledger.row.usage_source) == (expected, 1, UsageSource.NONE)


async def test_one_row_for_a_stream_that_is_abandoned(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(streams(chunk("y" * 40), chunk("y" * 40), then=stall, pause_seconds=0.01))
    with pytest.raises(ConnectionResetError):
        await relay(orchestrator, chat_request(stream=True), stop_after=2)
    assert ledger.row.status is RequestStatus.CLIENT_DISCONNECTED
    assert (ledger.row.usage_source, ledger.row.output_tokens.value) == (UsageSource.ESTIMATED, 20)
    async with asyncio.timeout(10):
        while upstream.cancelled == 0:
            await asyncio.sleep(0.005)


async def test_one_row_for_a_stream_that_breaks(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(streams(chunk("y" * 40), then=cut, pause_seconds=0.01))
    raw = await relay(orchestrator, chat_request(stream=True))
    assert raw == chunk("y" * 40)
    assert (ledger.row.status, ledger.row.error_type) == (RequestStatus.STREAM_BROKEN, "stream_connection")
    assert (ledger.row.usage_source, ledger.row.output_tokens.value) == (UsageSource.ESTIMATED, 10)


async def test_a_stream_that_tells_of_an_error_is_no_success(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    """Even if `[DONE]` follows: the client's SDK raises, so the books must not say that all was well."""
    error = b'data: {"error":{"code":502,"message":"provider gone"},"choices":[]}\n\n'
    sent = [chunk("a"), error, ending()[2]]
    upstream.answer(streams(*sent, pause_seconds=0.01))
    raw = await relay(orchestrator, chat_request(stream=True))
    assert raw == b"".join(sent)
    assert ledger.row.status is RequestStatus.STREAM_BROKEN


async def test_one_row_for_a_defect(orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger) -> None:
    async def serve() -> None:
        with orchestrator.exchange("req-1", lambda: True) as exchange:
            exchange.asked(chat_request())
            await orchestrator.complete(exchange, chat_request(), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await serve()
    row = ledger.row
    assert (row.status, row.error_type) == (RequestStatus.GATEWAY_ERROR, "ZeroDivisionError")
    assert (row.usage_source, row.reported_cost) == (UsageSource.REPORTED, CostAmount(Decimal("0.00123")))


async def test_one_row_for_a_prompt_that_is_too_long(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    with pytest.raises(TokenLimitExceeded):
        await complete(orchestrator, chat_request(model="auto", messages=[{"role": "user", "content": "x" * 800_004}]))
    assert upstream.calls == 0
    assert (ledger.row.status, ledger.row.attempts) == (RequestStatus.REFUSED, 0)


async def test_a_hundred_at_once_do_not_mix(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    async def counts(_request: Any) -> Any:
        sent = json.loads(upstream.bodies[-1])
        usage = {"prompt_tokens": sent["seed"], "completion_tokens": 1}
        return await says({**COMPLETION, "id": f"gen-{sent['seed']}", "usage": usage})(_request)

    upstream.answer(counts)
    answers = await asyncio.gather(*(complete(orchestrator, chat_request(seed=number)) for number in range(100)))
    assert [json.loads(answer.body)["id"] for answer in answers] == [f"gen-{number}" for number in range(100)]
    assert ledger.admitted == 100
    assert {(row.generation_id, row.input_tokens.value) for row in ledger.rows} == {
        (f"gen-{number}", number) for number in range(100)
    }


async def test_an_auto_prompt_with_an_integer_that_python_cannot_read_is_served(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    """JSON knows no longest integer; nothing that a client sends is a defect of ours."""
    messages = b'[{"role":"user","content":"x","n":' + b"1" * 5000 + b"}]"
    body = b'{"model":"auto","messages":' + messages + b"}"
    await complete(orchestrator, ChatRequest(body=body, model="auto", stream=False, members={"messages": messages}))
    assert upstream.bodies == [body.replace(b'"auto"', b'"z-ai/glm-4.6"')]
    assert ledger.row.status is RequestStatus.SUCCESS


async def slowly(request: web.Request) -> web.StreamResponse:
    """A head that tells the generation, and some time later what was generated."""
    body = json.dumps(COMPLETION).encode()
    response = web.StreamResponse(headers={"X-Generation-Id": "gen-header", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[:9])
    await asyncio.sleep(0.05)
    await response.write(body[9:])
    return response


async def test_the_generation_is_noted_as_soon_as_it_is_known(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    """By the header, else by the first chunk: a process that dies cannot tell it any more.

    Not of an answer that is there already: its row is booked next, and has it.
    """
    upstream.answer(
        slowly,
        streams(chunk("hi", id="gen-chunk"), generation_header=None, then=stall),
        says({key: value for key, value in COMPLETION.items() if key != "id"}, headers={"X-Generation-Id": "gen-too"}),
    )
    with orchestrator.exchange("r", lambda: False) as plain:
        plain.asked(chat_request())
        await orchestrator.complete(plain, chat_request(), {})
        assert ledger.generations == [(plain.id, "gen-header")]
    with orchestrator.exchange("r", lambda: False) as streamed:
        streamed.asked(chat_request(stream=True))
        stream = await orchestrator.stream(streamed, chat_request(stream=True), {})
        assert ledger.generations[1:] == [(streamed.id, "gen-chunk")]
        await stream.aclose()
    with orchestrator.exchange("r", lambda: False) as at_once:
        at_once.asked(chat_request())
        await orchestrator.complete(at_once, chat_request(), {})
    assert len(ledger.generations) == 2
    assert ledger.rows[-1].generation_id == "gen-too"


# A reload: a request keeps the deployments that it began with.


@dataclass
class SlowPurse:
    """A Purse, and the BudgetHold that it gives when it is opened."""

    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_give: asyncio.Event = field(default_factory=asyncio.Event)
    charges: Sequence[Charge] = ()

    def set_aside_at_once(self, _amount_picodollars: int, _moment: datetime) -> None:
        """Never."""

    async def set_aside(self, _amount_picodollars: int, _moment: datetime) -> SlowPurse:
        self.is_asked.set()
        await self.may_give.wait()
        return self

    def settle(self, charged: Sequence[Charge]) -> None:
        """Nothing was taken."""

    def warning(self) -> None:
        """None."""


async def waiting_for_money(
    orchestrator: KernelOrchestrator, exchange: Exchange, purse: SlowPurse
) -> asyncio.Future[Answer]:
    """A request that has come as far as that."""
    asked = chat_request()
    exchange.asked(asked)
    exchange.admitted(Admission(ANONYMOUS, purse=purse))
    answering = asyncio.ensure_future(orchestrator.complete(exchange, asked, {}))
    await purse.is_asked.wait()
    return answering


async def test_a_reload_leaves_a_request_that_waits_for_money_its_deployment(
    orchestrator: KernelOrchestrator, runtime: Runtime, fleet: Fleet, upstream: Upstream, ledger: FakeLedger
) -> None:
    upstream.answer(says())
    purse = SlowPurse()
    with orchestrator.exchange("req-1", lambda: False) as exchange:
        answering = await waiting_for_money(orchestrator, exchange, purse)
        await fleet.become([], in_use=lambda: not runtime.uses.are_over)
        await fleet.close_retired()
        purse.may_give.set()
        assert json.loads((await answering).body) == COMPLETION
        exchange.answering(200)
    assert (ledger.row.status, runtime.uses.are_over) == (RequestStatus.SUCCESS, True)


async def test_a_request_that_gives_up_waiting_for_money_uses_its_deployments_no_more(
    orchestrator: KernelOrchestrator, runtime: Runtime
) -> None:
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        answering = await waiting_for_money(orchestrator, exchange, SlowPurse())
        assert not runtime.uses.are_over
        answering.cancel()
        await asyncio.wait([answering])
    assert runtime.uses.are_over


# A disk that fails: nothing is begun that might not be booked, and nothing is lost that is paid.


async def test_without_the_disk_nobody_is_asked(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    ledger.is_without_disk = True
    with pytest.raises(LedgerFull):
        await complete(orchestrator, chat_request())
    assert (upstream.calls, ledger.row.status, ledger.row.attempts) == (0, RequestStatus.REFUSED, 0)


async def test_a_stream_that_is_paid_comes_to_its_end_without_the_disk(
    orchestrator: KernelOrchestrator, upstream: Upstream, ledger: FakeLedger
) -> None:
    sent = [chunk("Hel"), chunk("lo"), *ending()]
    upstream.answer(streams(*sent))
    asked = chat_request(stream=True)
    with orchestrator.exchange("req-1", lambda: False) as exchange:
        exchange.asked(asked)
        stream = await orchestrator.stream(exchange, asked, {})
        ledger.is_without_disk = True
        exchange.answering(200)
        assert b"".join([data async for data in stream]) == b"".join(sent)
        await stream.aclose()
    assert ledger.row.status is RequestStatus.SUCCESS
