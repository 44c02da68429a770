"""Many deployments that fail, hang, or change while requests run. `benchmarks/routing.py` has the large versions."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.load import asking, in_parallel, model_of, outcomes, until, urls, write_config
from benchmarks.upstreams import FAILURES, BadUpstream, Fault, serving
from proxy.domain.request_log import RequestStatus
from tests.harness import (
    ADMINISTERED,
    AS_ADMIN,
    HELLO,
    FakeTime,
    TestGateway,
    Upstream,
    chunk,
    cut,
    ending,
    fails,
    gateway_over,
    says,
    streams,
)

NAMED = {**HELLO, "model": "fast"}
STREAMED = {**NAMED, "stream": True}

Start = Callable[..., Awaitable[TestGateway]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "gateway.yaml"


@pytest.fixture
async def start(config: Path, sqlite_url: str) -> AsyncIterator[Start]:
    """Starts a gateway with the file that has been written."""
    async with AsyncExitStack() as stack:

        async def starting(timing: Any = None, **settings: Any) -> TestGateway:
            quiet = {"prices_sync_seconds": 0, "reconcile_seconds": 0}
            chosen = {"llmgateway_config": str(config), **quiet, **ADMINISTERED, **settings}
            return await stack.enter_async_context(gateway_over("http://127.0.0.1:9/", sqlite_url, timing, **chosen))

        yield starting


@pytest.fixture
async def two(upstream: Upstream) -> AsyncIterator[dict[str, Upstream]]:
    """Two upstreams, `one` and `two`, that answer."""
    second = Upstream([says()])
    server = TestServer(second.app())
    await server.start_server(access_log=None)
    second.url = str(server.make_url("/api/v1/"))
    yield {"one": upstream, "two": second}
    await server.close()


def where(two: dict[str, Upstream]) -> dict[str, str]:
    return {name: one.url for name, one in two.items()}


def write_both(config: Path, two: dict[str, Upstream], providers: Any = None, **model: Any) -> None:
    """The model `fast` at `one`, then at `two`."""
    models = {"fast": model_of("one", "two", strategy="priority", **model)}
    write_config(config, where(two), models=models, providers=providers or {})


def write_apart(config: Path, two: dict[str, Upstream], **sections: Any) -> None:
    """The model `fast` at `one`, the model `large` at `two`."""
    write_config(config, where(two), models={"fast": model_of("one"), "large": model_of("two")}, **sections)


def released(then: asyncio.Event) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer that waits for an event."""

    async def answering(request: web.Request) -> web.StreamResponse:
        await then.wait()
        return await says()(request)

    return answering


# What fails before the first byte.


async def test_every_request_succeeds_while_every_tenth_upstream_call_fails(start: Start, config: Path) -> None:
    """Plain and streamed, in all ways to fail in turn, whichever of three deployments is called."""
    calls, turns = itertools.count(1), itertools.cycle(FAILURES)

    def fault() -> Fault | None:
        return next(turns) if next(calls) % 10 == 0 else None

    upstreams = [BadUpstream(name, fault) for name in ("first", "second", "third")]
    async with serving(*upstreams):
        impatient = {one.name: {"timeouts": {"first_byte_seconds": 2}} for one in upstreams}
        models = {"m": model_of(*urls(*upstreams))}
        write_config(config, urls(*upstreams), providers=impatient, models=models)
        gateway = await start()
        replies = await in_parallel(asking(gateway.http, str(gateway.url).rstrip("/"), "m"), 300, clients=8)
    assert outcomes(replies) == "300 answered"
    failed = sum(sum(one.faults.values()) for one in upstreams)
    assert sum(one.calls for one in upstreams) == 300 + failed
    assert failed >= 30
    assert {fault for one in upstreams for fault in one.faults} == set(FAILURES)


async def test_a_full_outage_is_not_answered_with_more_calls(start: Start, config: Path) -> None:
    turns = itertools.cycle((Fault.SERVER_ERROR, Fault.RESET))
    upstreams = [BadUpstream(name, lambda: next(turns)) for name in ("first", "second", "third")]
    async with serving(*upstreams):
        write_config(config, urls(*upstreams), models={"m": model_of(*urls(*upstreams))})
        gateway = await start()
        replies = await in_parallel(asking(gateway.http, str(gateway.url).rstrip("/"), "m"), 200, clients=10)
        deployments = (await gateway.get("/health"))[1]["deployments"]
    assert not any(reply.is_whole for reply in replies)
    assert {reply.status for reply in replies} <= {502, 503}
    assert sum(one.calls for one in upstreams) <= 1.2 * len(replies)
    assert {deployment["circuit_breaker"] for deployment in deployments.values()} == {"open"}


async def test_a_deployment_that_hangs_takes_nothing_from_another(start: Start, config: Path) -> None:
    hung, well = BadUpstream("hung", lambda: Fault.HANG), BadUpstream("well")
    async with serving(hung, well):
        write_config(config, urls(hung, well), models={"h": model_of("hung"), "w": model_of("well")})
        gateway = await start()
        url = str(gateway.url).rstrip("/")
        hanging = asyncio.create_task(in_parallel(asking(gateway.http, url, "h"), 150, clients=150))
        await until(lambda: hung.waiting == 150)
        replies = await in_parallel(asking(gateway.http, url, "w"), 100, clients=10)
        in_flight = (await gateway.get("/health"))[1]["deployments"]["hung/any"]["in_flight"]
        assert (outcomes(replies), hung.waiting, in_flight) == ("100 answered", 150, 150)
        hung.released.set()
        assert outcomes(await hanging) == "150 answered"


async def test_a_deployments_retry_after_keeps_other_requests_away_from_it(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two)
    time = FakeTime()
    gateway = await start(time.timing())
    two["one"].answer(fails(429, {"Retry-After": "5"}), says())
    for attempts in ("2", "1", "1"):
        status, headers, _ = await gateway.chat(NAMED)
        assert (status, headers["x-gateway-provider"], headers["x-gateway-attempts"]) == (200, "two", attempts)
    assert (two["one"].calls, two["two"].calls) == (1, 3)
    assert (await gateway.get("/health"))[1]["deployments"]["one/any"]["cooling_down_seconds"] == {"any": 5}
    time.now += 5.1
    assert (await gateway.chat(NAMED))[1]["x-gateway-provider"] == "one"
    assert time.waits == []


async def test_a_cool_down_is_waited_for_when_nobody_else_can_be_asked(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two)
    time = FakeTime()
    gateway = await start(time.timing())
    two["one"].answer(fails(429, {"Retry-After": "3"}), says())
    two["two"].answer(fails(429, {"Retry-After": "7"}), says())
    assert [(await gateway.chat(NAMED))[0] for _ in range(2)] == [200, 200]
    assert time.waits == [7]  # the last one of the plan is retried, within the first request
    two["one"].answer(fails(429, {"Retry-After": "3"}), says())
    two["two"].answer(fails(429, {"Retry-After": "31"}), says())
    assert (await gateway.chat(NAMED))[0] == 429
    time.waits.clear()
    for body in (NAMED, STREAMED):
        two["one"].answer(says() if body is NAMED else streams(chunk("hi"), *ending()))
        status, headers, _ = await gateway.raw_chat(body)
        assert (status, headers["x-gateway-provider"], headers["x-gateway-attempts"]) == (200, "one", "1")
    assert time.waits == [3]
    assert two["two"].calls == 1


async def test_a_long_cool_down_of_all_is_handed_to_the_client(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two)
    time = FakeTime()
    gateway = await start(time.timing())
    for one in two.values():
        one.answer(fails(429, {"Retry-After": "40"}))
    await gateway.chat(NAMED)
    status, headers, body = await gateway.chat(NAMED)
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "40", "no_deployment_available")
    assert (time.waits, two["one"].calls, two["two"].calls) == ([], 1, 1)


async def test_a_wait_beyond_all_sense_is_none_and_a_long_one_is_kept_for_an_hour(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two)
    time = FakeTime()
    gateway = await start(time.timing())
    for one in two.values():
        one.answer(fails(429, {"Retry-After": "1e308", "retry-after-ms": "99999999999999999999"}))
    status, headers, _ = await gateway.chat(NAMED)
    assert (status, len(headers.get("retry-after", "")) < 3) == (429, True)
    for one in two.values():
        one.answer(fails(429, {"Retry-After": "7200"}))
    await gateway.chat(NAMED)
    status, headers, _ = await gateway.chat(NAMED)
    assert (status, headers["retry-after"]) == (503, "3600")
    for one in two.values():
        one.answer(says())
    time.now += 3600
    assert (await gateway.chat(NAMED))[0] == 200


# What fails later, or is asked of somebody else.


async def test_a_stream_that_breaks_off_is_never_begun_again_elsewhere(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two)
    gateway = await start()
    two["one"].answer(streams(chunk("Once"), chunk(" upon"), then=cut))
    status, headers, raw = await gateway.raw_chat(STREAMED)
    assert (status, headers["x-gateway-provider"]) == (200, "one")
    assert raw.startswith(chunk("Once"))
    assert b'"error"' in raw
    assert b"[DONE]" not in raw
    assert (two["one"].calls, two["two"].calls) == (1, 0)
    assert (await gateway.row()).status is RequestStatus.STREAM_BROKEN


@pytest.mark.parametrize("body", [NAMED, STREAMED], ids=["plain", "streamed"])
async def test_who_named_one_model_never_gets_another(
    start: Start, config: Path, two: dict[str, Upstream], body: dict[str, Any]
) -> None:
    write_apart(config, two)
    gateway = await start()
    two["one"].answer(fails(503))
    status, _, answer = await gateway.chat(body)
    assert (status, answer["error"]["code"]) == (503, 503)
    assert two["two"].calls == 0
    for _ in range(5):
        await gateway.chat(body)
    status, headers, answer = await gateway.chat(body)
    assert (status, answer["error"]["code"]) == (503, "provider_unavailable")
    assert int(headers["retry-after"]) > 1
    assert two["two"].calls == 0


async def test_who_lists_other_models_gets_them_and_is_told(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_apart(config, two)
    gateway = await start()
    two["one"].answer(fails(503))
    echo = json.loads(json.dumps({**HELLO, "choices": [{"message": {"content": "x"}}], "model": "grand"}))
    two["two"].answer(says(echo))
    status, headers, _ = await gateway.chat({**NAMED, "models": ["large"]})
    assert (status, headers["x-gateway-provider"], headers["x-gateway-model"]) == (200, "two", "grand")
    row = await gateway.row()
    assert (row.requested_model, row.was_fallback) == ("fast", True)
    assert b'"models"' not in two["two"].bodies[0]


async def test_auto_chooses_among_the_configured_models(start: Start, config: Path, two: dict[str, Upstream]) -> None:
    write_apart(config, two)
    models = {"auto_default_model": "fast", "auto_large_context_model": "large", "auto_balanced_model": "large"}
    gateway = await start(**models)
    auto = {**HELLO, "model": "auto"}
    assert (await gateway.chat(auto))[1]["x-gateway-provider"] == "one"
    long = {**auto, "messages": [{"role": "user", "content": "x" * 50_000}]}
    assert (await gateway.chat(long))[1]["x-gateway-provider"] == "two"
    two["one"].answer(fails(503))
    status, headers, _ = await gateway.chat(auto)
    assert (status, headers["x-gateway-provider"]) == (200, "two")
    row = (await gateway.rows(3))[0]
    assert (row.requested_model, row.was_fallback, row.model.value) == ("auto", True, "any")


async def test_auto_without_its_models_says_so(start: Start, config: Path, two: dict[str, Upstream]) -> None:
    write_apart(config, two)
    gateway = await start()
    status, _, body = await gateway.chat({**HELLO, "model": "auto"})
    assert (status, body["error"]["code"]) == (404, "model_not_found")


# Limits.


async def test_what_is_too_much_for_one_deployment_goes_to_another_and_then_is_refused(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    single = {"max_concurrency": 1, "max_queue": 0}
    write_both(config, two, {"one": single, "two": single})
    gateway = await start()
    release = asyncio.Event()
    two["one"].answer(released(release))
    two["two"].answer(released(release))
    first = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["one"].calls == 1)
    second = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["two"].calls == 1)
    for body in (NAMED, STREAMED):
        status, headers, answer = await gateway.chat(body)
        assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "1", "no_deployment_available")
        assert answer["error"]["message"].count("queue full") == 2
    release.set()
    assert [(await call)[1]["x-gateway-provider"] for call in (first, second)] == ["one", "two"]
    assert (two["one"].calls, two["two"].calls) == (1, 1)
    assert (await gateway.chat(NAMED))[1]["x-gateway-provider"] == "one"


@pytest.mark.parametrize("body", [NAMED, STREAMED], ids=["plain", "stream"])
async def test_a_deployment_that_nobody_can_stand_in_for_is_busy_when_no_place_comes_free(
    start: Start, config: Path, two: dict[str, Upstream], body: dict[str, Any]
) -> None:
    write_apart(config, two, providers={"one": {"max_concurrency": 1, "max_queue": 1, "queue_timeout_seconds": 0.2}})
    gateway = await start()
    release = asyncio.Event()
    two["one"].answer(released(release))
    running = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["one"].calls == 1)
    status, headers, answer = await gateway.chat(body)
    assert (status, headers["retry-after"], answer["error"]["code"]) == (503, "1", "provider_busy")
    assert "no place was free within 0.2 s" in answer["error"]["message"]
    release.set()
    assert (await running)[0] == 200
    assert two["one"].calls == 1


async def test_who_waited_in_vain_for_a_place_is_served_elsewhere(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    write_both(config, two, {"one": {"max_concurrency": 1, "max_queue": 1, "queue_timeout_seconds": 0.1}})
    gateway = await start()
    release = asyncio.Event()
    two["one"].answer(released(release))
    first = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["one"].calls == 1)
    assert (await gateway.chat(NAMED))[1]["x-gateway-provider"] == "two"
    release.set()
    assert (await first)[1]["x-gateway-provider"] == "one"


async def test_who_waits_for_a_place_gets_it(start: Start, config: Path, two: dict[str, Upstream]) -> None:
    write_config(
        config, where(two), models={"fast": model_of("one")}, providers={"one": {"max_concurrency": 2, "max_queue": 20}}
    )
    gateway = await start()
    most, now = 0, 0

    async def answering(request: web.Request) -> web.StreamResponse:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        is_stream = b'"stream"' in await request.read()
        return await (streams(chunk("hi"), *ending()) if is_stream else says())(request)

    two["one"].answer(answering)
    bodies = [NAMED, STREAMED] * 10
    answers = await asyncio.gather(*(gateway.raw_chat(body) for body in bodies))
    assert [status for status, _, _ in answers] == [200] * 20
    assert most == 2


# Hedging, and changes.


async def test_a_hedged_call_has_a_row_of_its_own_beside_the_winners(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    slow, fast = BadUpstream("slow", lambda: Fault.SLOW, slow_seconds=20), BadUpstream("fast")
    async with serving(slow, fast):
        models = {"fast": model_of("slow", "fast", strategy="priority", hedge={"after_seconds": 0.2})}
        told = {name: {"kind": "openrouter"} for name in ("slow", "fast")}
        write_config(config, urls(slow, fast), models=models, providers=told)
        gateway = await start()
        status, headers, raw = await gateway.raw_chat(STREAMED)
        assert (status, headers["x-gateway-provider"]) == (200, "fast")
        assert raw.endswith(b"data: [DONE]\n\n")
        rows = {row.status: row for row in await gateway.rows(2)}
        await until(lambda: slow.waiting == 0)
        _, report = await gateway.get("/v1/usage?by=status")
    assert [(row["status"], row["requests"]) for row in report["data"]] == [("success", 1), ("hedged", 0)]
    winner, loser = rows[RequestStatus.SUCCESS], rows[RequestStatus.HEDGED]
    assert (winner.provider_name, winner.generation_id) == ("fast", "gen-fast-1")
    assert (loser.provider_name, loser.generation_id) == ("slow", "gen-slow-1")
    assert winner.request_id == loser.request_id
    assert (slow.calls, fast.calls) == (1, 1)


async def busy_one(gateway: TestGateway, two: dict[str, Upstream]) -> tuple[asyncio.Task[Any], asyncio.Event]:
    """A request that has the only place at `one` until the event, and has been hedged in vain."""
    release = asyncio.Event()
    two["one"].answer(released(release), says())
    two["two"].answer(fails(503), says())
    request = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["two"].calls == 1)
    return request, release


async def booked_calls(gateway: TestGateway, count: int) -> list[tuple[str, RequestStatus, int]]:
    return sorted((row.provider_name, row.status, row.attempts) for row in await gateway.rows(count))


async def test_who_waits_in_a_queue_is_served_by_a_hedge(start: Start, config: Path, two: dict[str, Upstream]) -> None:
    write_both(config, two, {"one": {"max_concurrency": 1}}, hedge={"after_seconds": 0.05})
    gateway = await start()
    first, release = await busy_one(gateway, two)
    status, headers, _ = await gateway.chat(NAMED)
    assert (status, headers["x-gateway-provider"], headers["x-gateway-attempts"]) == (200, "two", "1")
    release.set()
    assert (await first)[0] == 200
    assert (two["one"].calls, two["two"].calls) == (1, 2)
    hedged, success = RequestStatus.HEDGED, RequestStatus.SUCCESS
    assert await booked_calls(gateway, 3) == [("one", success, 1), ("two", hedged, 1), ("two", success, 1)]


@pytest.mark.parametrize("winner", ["one", "two"])
async def test_who_was_overtaken_in_a_queue_and_then_called_has_a_row_too(
    start: Start, config: Path, two: dict[str, Upstream], winner: str
) -> None:
    write_both(config, two, {"one": {"max_concurrency": 1}}, hedge={"after_seconds": 0.05})
    gateway = await start()
    first, release = await busy_one(gateway, two)
    releases = {name: asyncio.Event() for name in two}
    two["one"].answer(released(releases["one"]))
    two["two"].answer(released(releases["two"]))
    second = asyncio.create_task(gateway.chat(NAMED))
    await until(lambda: two["two"].calls == 1)
    release.set()
    await until(lambda: two["one"].calls == 1)
    releases[winner].set()
    assert (await second)[1]["x-gateway-provider"] == winner
    assert (await first)[0] == 200
    loser = next(name for name in two if name != winner)
    hedged, success = RequestStatus.HEDGED, RequestStatus.SUCCESS
    of_first = [("one", success, 1), ("two", hedged, 1)]
    assert await booked_calls(gateway, 4) == sorted([*of_first, (winner, success, 1), (loser, hedged, 1)])


async def test_a_call_that_failed_before_a_queue_is_nobody_s_loser(
    start: Start, config: Path, two: dict[str, Upstream]
) -> None:
    """The hedge runs beside nothing: what failed before it belongs to the request's own row."""
    ill = BadUpstream("ill", lambda: Fault.SERVER_ERROR)
    async with serving(ill):
        model = model_of("ill", "one", "two", strategy="priority", hedge={"after_seconds": 0.05})
        places = {"one": {"max_concurrency": 1}}
        models = {"fast": model, "busy": model_of("one")}
        write_config(config, {**urls(ill), **where(two)}, models=models, providers=places)
        gateway = await start()
        release = asyncio.Event()
        two["one"].answer(released(release))
        first = asyncio.create_task(gateway.chat({**NAMED, "model": "busy"}))
        await until(lambda: two["one"].calls == 1)
        status, headers, _ = await gateway.chat(NAMED)
        assert (status, headers["x-gateway-provider"], headers["x-gateway-attempts"]) == (200, "two", "2")
        release.set()
        await first
        success = RequestStatus.SUCCESS
        assert await booked_calls(gateway, 2) == [("one", success, 1), ("two", success, 2)]


async def test_no_request_fails_while_the_file_changes(start: Start, config: Path) -> None:
    a, b, ill = BadUpstream("a"), BadUpstream("b"), BadUpstream("ill", lambda: Fault.SERVER_ERROR)

    def write(number: int, **more: Any) -> None:
        """Another weight for `a`; `b` made anew; `ill` as it was."""
        models = {"m": model_of("a", "b", weights=(number + 1, 1)), "i": model_of("ill")}
        write_config(
            config,
            urls(a, b, ill),
            models=models,
            providers={"b": {"timeouts": {"idle_seconds": 10 + number}}},
            routing={"circuit_breaker": {"cooldown_seconds": 600}},
            **more,
        )

    async with serving(a, b, ill):
        write(0)
        gateway = await start()
        url = str(gateway.url).rstrip("/")
        await in_parallel(asking(gateway.http, url, "i"), 20, clients=1)
        ill_calls = ill.calls
        load = asyncio.create_task(in_parallel(asking(gateway.http, url, "m"), 400, clients=8))
        for number in range(1, 21):
            wrong = number % 2 == 0
            write(number, **({f"model{number}": {}} if wrong else {}))
            async with gateway.http.post(gateway.url / "admin/config/reload", headers=AS_ADMIN) as response:
                assert response.status == (422 if wrong else 200)
            shown = (await gateway.get("/health"))[1]["configuration"]["problems"]
            assert len(shown) == int(wrong)
        assert not load.done(), "the reloads outlasted the requests"
        replies = await load
        state = (await gateway.get("/health"))[1]["deployments"]["ill/any"]
    assert outcomes(replies) == "400 answered"
    assert (state["circuit_breaker"], state["success_rate"], ill.calls) == ("open", 0, ill_calls)
    assert b.calls > 0
