"""GET /metrics of a running gateway: exact counts of what it did, and nothing that a client could choose."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.load import model_of
from proxy.application.allowances import Rulebook
from proxy.domain.access.scopes import GATEWAY
from proxy.domain.rate_limits import RateLimit
from proxy.infrastructure.persistence.database import open_database
from tests.budgets.conftest import a_budget, put
from tests.conftest import StartGateway
from tests.harness import (
    AS_ADMIN,
    COMPLETION,
    HELLO,
    USAGE,
    FakeTime,
    Upstream,
    chunk,
    cut,
    ending,
    fails,
    says,
    stall,
    streams,
)
from tests.overload.conftest import gateway_with_bounds
from tests.telemetry.conftest import Start
from tests.telemetry.scraping import scrape

FAST = {**HELLO, "model": "fast"}
STREAMED = {**FAST, "stream": True}
WHERE = {"provider": "one", "deployment": "one/any"}
WHO = {"model": "fast", "provider": "one"}


async def test_a_plain_answer_is_counted_once_in_everything(start: Start, upstream: Upstream) -> None:
    gateway = await start()
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    upstream.answer(says({**COMPLETION, "usage": {**USAGE, **details}}))
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    answered = {"outcome": "success", "status_class": "2xx", "stream": "false"}
    assert page.only("llmgateway_requests_total") == ({**WHO, **answered}, 1)
    assert page.only("llmgateway_input_tokens_total") == (WHO, 10)
    assert page.only("llmgateway_output_tokens_total") == (WHO, 5)
    assert page.only("llmgateway_cached_input_tokens_total") == (WHO, 4)
    assert page.only("llmgateway_reasoning_tokens_total") == (WHO, 2)
    assert page.only("llmgateway_cost_usd_total") == ({**WHO, "source": "reported"}, 0.00123)
    assert page.only("llmgateway_upstream_attempts_total") == ({**WHERE, "reason": "first"}, 1)
    assert page.only("llmgateway_request_duration_seconds_count") == ({"model": "fast", "stream": "false"}, 1)
    assert page.only("llmgateway_overhead_seconds_count") == ({"stream": "false"}, 1)
    route = {"route": "/v1/chat/completions", "status_class": "2xx"}
    assert page.value("llmgateway_http_responses_total", **route) == 1
    for name in ("request_errors_total", "upstream_retries_total", "upstream_errors_total", "limit_refusals_total"):
        assert page.of(f"llmgateway_{name}") == []


async def test_a_stream_has_a_first_byte(start: Start, upstream: Upstream) -> None:
    gateway = await start()
    upstream.answer(streams(chunk("Hi"), *ending(), pause_seconds=0.03))
    await gateway.raw_chat(STREAMED)
    page = await scrape(gateway)
    assert page.only("llmgateway_time_to_first_byte_seconds_count") == (WHO, 1)
    assert page.value("llmgateway_request_duration_seconds_sum") >= 0.06
    assert page.value("llmgateway_requests_total", stream="true", outcome="success") == 1


async def test_retries_and_what_they_were_for(start: Start, upstream: Upstream) -> None:
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(503), fails(503), says())
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    assert page.only("llmgateway_upstream_retries_total") == (WHERE, 2)
    assert page.value("llmgateway_upstream_attempts_total") == 1
    assert page.value("llmgateway_requests_total", outcome="success") == 1


async def test_a_fallback_and_the_failure_behind_it(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    write(fallbacks={"general": {"fast": ["large"]}}, routing={"max_attempts": 2})
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(500))
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    assert page.only("llmgateway_upstream_errors_total") == ({**WHERE, "error": "http_500"}, 1)
    assert page.value("llmgateway_upstream_attempts_total", **WHERE, reason="first") == 1
    fallback = {"provider": "two", "deployment": "two/any", "reason": "fallback"}
    assert page.value("llmgateway_upstream_attempts_total", **fallback) == 1
    assert page.value("llmgateway_requests_total", model="fast", provider="two", outcome="success") == 1


async def test_another_deployment_of_the_same_model(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    write(models={"fast": model_of("one", "two", strategy="priority")})
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(500))
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    assert page.value("llmgateway_upstream_attempts_total", provider="two", reason="elsewhere") == 1


async def test_both_calls_of_a_hedged_request_are_paid(
    start: Start, write: Callable[..., None], upstream: Upstream
) -> None:
    write(models={"fast": model_of("one", "two", strategy="priority", hedge={"after_seconds": 0.05})})
    gateway = await start()

    async def slow(request: Any) -> Any:
        await asyncio.sleep(30)

    upstream.answer(slow)
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    assert page.value("llmgateway_upstream_attempts_total", provider="two", reason="hedge") == 1
    assert page.value("llmgateway_requests_total") == 1
    assert page.value("llmgateway_input_tokens_total", provider="two") == 10
    assert page.value("llmgateway_cost_unknown_requests_total", provider="one") == 1


async def test_errors_by_kind(start: Start, upstream: Upstream) -> None:
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(400))
    assert (await gateway.chat(FAST))[0] == 400
    upstream.answer(streams(chunk("Hi"), then=cut))
    await gateway.raw_chat(STREAMED)
    assert (await gateway.chat({**HELLO, "model": "nobody-has-this"}))[0] == 404
    assert (await gateway.chat(b"{"))[0] == 400
    page = await scrape(gateway)
    assert page.value("llmgateway_request_errors_total", **WHO, error="http_400") == 1
    assert page.value("llmgateway_requests_total", **WHO, outcome="upstream_error", status_class="4xx") == 1
    assert page.value("llmgateway_requests_total", **WHO, outcome="stream_broken", status_class="2xx") == 1
    refused = {"model": "unknown", "provider": "none", "outcome": "refused", "status_class": "4xx"}
    assert page.value("llmgateway_requests_total", **refused) == 2
    assert page.value("llmgateway_http_responses_total", route="/v1/chat/completions", status_class="4xx") == 3


async def test_a_client_that_hung_up(start: Start, upstream: Upstream) -> None:
    gateway = await start()

    async def slow(request: Any) -> Any:
        await asyncio.sleep(30)

    upstream.answer(slow)
    asking = asyncio.create_task(gateway.chat(FAST))
    while not upstream.calls:
        await asyncio.sleep(0.01)
    assert (await scrape(gateway)).value("llmgateway_deployment_calls_in_flight", **WHERE) == 1
    assert (await scrape(gateway)).value("llmgateway_requests_in_flight") == 1
    asking.cancel()
    await gateway.rows(1)
    page = await scrape(gateway)
    assert page.value("llmgateway_requests_total", outcome="client_disconnected", status_class="none") == 1
    assert page.value("llmgateway_upstream_errors_total", **WHERE, error="cancelled") == 1
    assert page.value("llmgateway_http_responses_total", route="/v1/chat/completions", status_class="none") == 1
    assert page.value("llmgateway_requests_in_flight") == 0


async def test_a_breaker_that_opens(start: Start, upstream: Upstream) -> None:
    gateway = await start(FakeTime().timing(), circuit_breaker_failure_threshold=2, retry_max_retries=0)
    upstream.answer(fails(503))
    assert (await scrape(gateway)).value("llmgateway_breaker_state", **WHERE) == 0
    for _ in range(3):
        await gateway.chat(FAST)
    page = await scrape(gateway)
    assert page.value("llmgateway_breaker_state", **WHERE) == 2
    assert page.value("llmgateway_breaker_state", deployment="two/any") == 0
    assert page.value("llmgateway_upstream_errors_total", **WHERE, error="http_503") == 2


async def test_refusals_name_the_kind_of_limit_and_whose_it_is(start: Start) -> None:
    rules = Rulebook(limits=[RateLimit(id=uuid4(), subject=GATEWAY, requests_per_minute=1)])
    gateway = await start(rules=lambda: rules)
    assert [(await gateway.chat(FAST))[0] for _ in range(3)] == [200, 429, 429]
    page = await scrape(gateway)
    assert page.only("llmgateway_limit_refusals_total") == ({"kind": "rate_limit", "scope": "gateway"}, 2)


async def test_a_request_over_a_budget(start: Start, postgres_url: str) -> None:
    async with open_database(postgres_url) as database:
        budget = await put(database, a_budget("0.000001"))
    rules = Rulebook(budgets=[budget])
    gateway = await start(rules=lambda: rules, database_url=postgres_url)
    assert (await gateway.chat(FAST))[0] in (402, 429)
    page = await scrape(gateway)
    assert page.only("llmgateway_limit_refusals_total") == ({"kind": "budget", "scope": "gateway"}, 1)


async def test_calls_that_wait_for_a_deployment(start: Start, write: Callable[..., None], upstream: Upstream) -> None:
    write(providers={"one": {"max_concurrency": 1}})
    gateway = await start()
    may_answer = asyncio.Event()

    async def answering(request: Any) -> Any:
        await may_answer.wait()
        return await says()(request)

    upstream.answer(answering)
    asking = [asyncio.create_task(gateway.chat(FAST)) for _ in range(3)]
    async with asyncio.timeout(10):
        while (await scrape(gateway)).value("llmgateway_deployment_queue_length", **WHERE) < 2:
            await asyncio.sleep(0.02)
    may_answer.set()
    assert [status for status, _, _ in await asyncio.gather(*asking)] == [200, 200, 200]
    page = await scrape(gateway)
    assert page.only("llmgateway_queue_wait_seconds_count") == ({"deployment": "one/any"}, 2)
    assert page.value("llmgateway_deployment_queue_length", **WHERE) == 0


async def test_a_database_and_a_valkey_that_are_away(start: Start) -> None:
    away = {"database_url": "postgresql://nobody@127.0.0.1:9/none", "llmgateway_valkey_url": "valkey://127.0.0.1:9"}
    gateway = await start(**away)
    assert (await gateway.chat(FAST))[0] == 200
    page = await scrape(gateway)
    assert page.value("llmgateway_database_up") == 0
    assert page.only("llmgateway_valkey_up") == ({}, 0)
    assert page.value("llmgateway_ledger_can_book") == 0
    assert page.value("llmgateway_ledger_waiting_rows") == 1
    assert page.value("llmgateway_ledger_oldest_waiting_seconds") >= 0


async def test_a_configuration_that_cannot_be_used(start: Start, config: Path, write: Callable[..., None]) -> None:
    gateway = await start()
    told = {}
    for state, change in (("broken", lambda: config.write_text("modle: {}\n")), ("whole", write)):
        change()
        async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN):
            told[state] = (await scrape(gateway)).only("llmgateway_config_last_reload_successful")
    assert told == {"broken": ({}, 0), "whole": ({}, 1)}


async def test_the_ledgers_backlog(start: Start) -> None:
    gateway = await start()
    await gateway.chat(FAST)
    await gateway.rows(1)
    page = await scrape(gateway)
    assert page.value("llmgateway_ledger_booked_rows_total") == 1
    assert page.value("llmgateway_ledger_waiting_rows") == 0
    assert page.value("llmgateway_ledger_spool_bytes") > 0
    assert page.value("llmgateway_database_up") == 1
    assert page.value("llmgateway_ledger_can_book") == 1
    assert page.value("llmgateway_ready") == 1
    assert page.value("process_resident_memory_bytes") > 10_000_000
    assert page.value("process_open_fds") > 3
    assert page.value("llmgateway_build_info") == 1


async def test_what_is_turned_away(upstream: Upstream, sqlite_url: str, tmp_path: Path) -> None:
    upstream.answer(streams(chunk("Hi"), then=stall))
    async with gateway_with_bounds(upstream.url, sqlite_url, tmp_path, max_in_flight=1) as gateway:
        asking = gateway.http.post(gateway.url / "v1/chat/completions", json={**HELLO, "stream": True})
        async with asking as response:
            assert await response.content.readany()
            assert [(await gateway.raw_chat())[0] for _ in range(2)] == [503, 503]
            page = await scrape(gateway)
    assert page.only("llmgateway_requests_in_flight") == ({}, 1)
    assert page.only("llmgateway_requests_in_flight_limit") == ({}, 1)
    assert page.value("llmgateway_overload_refusals_total", reason="in_flight") == 2
    assert page.value("llmgateway_overload_refusals_total") == 2
    assert page.value("llmgateway_connections") >= 2
    assert page.value("llmgateway_overloaded") == 0


async def test_how_late_the_event_loop_was(start: Start) -> None:
    gateway = await start()
    time.sleep(0.3)  # noqa: ASYNC251  # holds everything up
    async with asyncio.timeout(10):
        while not (page := await scrape(gateway)).value("llmgateway_event_loop_lag_seconds_count"):
            await asyncio.sleep(0.02)
    quick = page.value("llmgateway_event_loop_lag_seconds_bucket", le="0.25")
    assert page.value("llmgateway_event_loop_lag_seconds_count") > quick


async def test_a_deployment_that_is_gone_is_not_shown_any_more(start: Start, write: Callable[..., None]) -> None:
    gateway = await start()
    assert (await scrape(gateway)).of("llmgateway_breaker_state", deployment="two/any")
    write(models={"fast": model_of("one")})
    async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN) as response:
        assert response.status == 200
    page = await scrape(gateway)
    assert page.of("llmgateway_breaker_state", **WHERE)
    assert not page.of("llmgateway_breaker_state", deployment="two/any")


async def test_nothing_that_a_client_chooses_is_told(start: Start, write: Callable[..., None]) -> None:
    write(models={"fast": model_of("one"), "any/*": model_of("two")}, aliases={"nick": "fast"})
    gateway = await start()
    canary = "CANARY-5f1e"
    for model in (canary, f"any/{canary}", "fast", "nick"):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": canary}],
            "user": canary,
            "metadata": {"a": canary},
        }
        await gateway.chat(body, Authorization=f"Bearer {canary}", x_request_id=canary, x_gateway_user=canary)
    async with gateway.http.get(gateway.url / canary) as response:
        assert response.status == 404
    async with gateway.http.get(gateway.url / "v1/models" / canary) as response:
        assert response.status == 404
    page = await scrape(gateway)
    assert canary.lower() not in page.text.lower()
    assert "sk-" not in page.text
    assert page.value("llmgateway_requests_total", model="any/*") == 1
    assert page.value("llmgateway_requests_total", model="fast") == 2
    assert page.value("llmgateway_requests_total", model="unknown") == 1
    assert page.value("llmgateway_http_responses_total", route="/v1/models/{model_id}", status_class="4xx") == 1


async def test_any_number_of_model_names_makes_no_series(start: Start, write: Callable[..., None]) -> None:
    write(models={"fast": model_of("one"), "any/*": model_of("two")})
    gateway = await start()

    async def ask(model: str) -> None:
        await gateway.chat({**HELLO, "model": model})

    for each in ("fast", "any/thing", "thing"):
        await ask(each)
    await scrape(gateway)
    before = await scrape(gateway)
    odd = [f'{prefix}{n}\n"é{{}}' for n in range(40) for prefix in ("any/", "", "fast")]
    await asyncio.gather(*map(ask, odd))
    after = await scrape(gateway)
    assert after.value("llmgateway_requests_total") == len(odd) + 3
    assert {(s.name, *sorted(s.labels.items())) for s in after.samples} == {
        (s.name, *sorted(s.labels.items())) for s in before.samples
    }


async def test_who_may_read_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-administrator")
    async with gateway.http.post(
        gateway.url / "admin/keys", headers=AS_ADMIN, json={"name": "caller", "role": "member"}
    ) as response:
        assert response.status == 201, await response.text()
        member = (await response.json())["key"]
    async with gateway.http.post(
        gateway.url / "admin/keys", headers=AS_ADMIN, json={"name": "prometheus", "role": "auditor"}
    ) as response:
        assert response.status == 201, await response.text()
        auditor = (await response.json())["key"]
    statuses = {}
    for name, key in {"none": None, "member": member, "auditor": auditor, "admin": "sk-administrator"}.items():
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with gateway.http.get(gateway.url / "metrics", headers=headers) as response:
            statuses[name] = response.status
    assert statuses == {"none": 401, "member": 403, "auditor": 200, "admin": 200}


async def test_without_keys_it_is_open_as_the_rest_is(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with gateway.http.get(gateway.url / "metrics") as response:
        assert response.status == 200


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "text/plain"])
async def test_the_format_is_negotiated(start: Start, accept: str) -> None:
    gateway = await start()
    await gateway.chat(FAST)
    async with gateway.http.get(gateway.url / "metrics", headers={**AS_ADMIN, "Accept": accept}) as response:
        text = await response.text()
        assert response.headers["Content-Type"].startswith(accept.partition(";")[0])
    if accept.startswith("application"):
        families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
        assert families["llmgateway_requests"].samples[0].value == 1
    else:
        assert json.dumps("fast") in text
