"""Limits that several gateways share through a real Valkey server, which is also frozen and killed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from proxy.application.idempotency import AnswerHead, IdempotencyKey
from proxy.domain.access.scopes import GATEWAY, Scope, Subject
from proxy.domain.errors import RateLimited
from proxy.domain.rate_limits import TokenEstimate
from proxy.infrastructure.idempotency.shared import shared_store
from proxy.infrastructure.idempotency.valkey import ValkeyRegistry
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.valkey import valkey_client
from tests.limits.conftest import Build, Limiter, applied
from tests.valkey import Valkey

KEY = Subject(Scope.KEY, "7d0a")
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "scaling.md"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


_AT_ONCE = 50  # a busy machine cannot set up more connections to Valkey in the second that they are given


async def count_admitted(limiters: list[Limiter], times: int, *limits: object) -> int:
    crowd = asyncio.Semaphore(_AT_ONCE)

    async def ask(limiter: Limiter) -> bool:
        async with crowd:
            try:
                await limiter.enter(*limits)  # type: ignore[arg-type]
            except RateLimited:
                return False
            return True

    return sum(await asyncio.gather(*(ask(limiters[number % len(limiters)]) for number in range(times))))


async def test_two_gateways_count_together(build: Build, valkey: Valkey) -> None:
    limiters = [await build(valkey.url, deadline_seconds=10.0) for _ in range(2)]  # a thousand ask at once
    limit = applied(KEY, requests_per_minute=100)
    assert await count_admitted(limiters, 1000, limit) == 100
    with pytest.raises(
        RateLimited, match=r"Limit 100, Used 100, Requested 1. Please try again in (1m[01]|[56]).*s"
    ) as caught:
        await limiters[0].enter(limit)
    assert caught.value.retry_after_seconds is not None
    assert 55 < caught.value.retry_after_seconds < 61
    assert "x-gateway-limits" not in caught.value.headers


async def test_a_full_limit_takes_nothing_of_the_others(build: Build, valkey: Valkey) -> None:
    limiter = await build(valkey.url)
    wide, narrow = applied(requests_per_minute=10), applied(KEY, requests_per_minute=1)
    assert await count_admitted([limiter], 6, wide, narrow) == 1
    assert (await limiter.enter(wide)).headers["x-ratelimit-remaining-requests"] == "8"


async def test_tokens_are_corrected_for_all(build: Build, valkey: Valkey) -> None:
    here, there = await build(valkey.url), await build(valkey.url)
    limit = applied(KEY, tokens_per_minute=1000)
    granted = await here.enter(limit, estimate=TokenEstimate(100, 900))
    with pytest.raises(RateLimited):
        await there.enter(limit, estimate=TokenEstimate(100, 900))
    granted.leave(100, 100)
    await until(lambda: here.counting.state()["untold"] == 0)
    await here.shared.probe()  # answered after what was told before
    second = await there.enter(limit, estimate=TokenEstimate(100, 700))
    assert second.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_who_waits_is_served_when_another_gateway_gives_back(build: Build, valkey: Valkey) -> None:
    here, there = await build(valkey.url), await build(valkey.url)
    limit = applied(GATEWAY, concurrent_requests=1)
    running = await here.enter(limit)
    waiting = asyncio.create_task(there.enter(limit))
    await until(lambda: there.counting.state()["waiting"])
    running.leave(0, 0)
    async with asyncio.timeout(10):
        (await waiting).leave(0, 0)


async def test_places_of_the_living_are_kept_and_those_of_the_dead_are_not(build: Build, valkey: Valkey) -> None:
    living, dead = await build(valkey.url, lease_seconds=0.6), await build(valkey.url, lease_seconds=0.6)
    limit = applied(KEY, concurrent_requests=2)
    await living.enter(limit)
    await dead.enter(limit)
    with pytest.raises(RateLimited):
        await living.enter(limit)
    dead.shared._held.clear()  # what a dead process does: renew nothing
    third: list[Pass] = []

    async def got_in() -> bool:
        try:
            third.append(await living.enter(limit))
        except RateLimited:
            return False
        return True

    async with asyncio.timeout(10):
        while not await got_in():
            await asyncio.sleep(0.05)
    for _ in range(20):  # far longer than a lease
        await asyncio.sleep(0.1)
        with pytest.raises(RateLimited):
            await living.enter(limit)


async def test_a_frozen_server_costs_one_deadline_and_comes_back_by_itself(build: Build, valkey: Valkey) -> None:
    limiter = await build(valkey.url, deadline_seconds=0.1)
    limit = applied(KEY, requests_per_minute=5)
    await limiter.enter(limit)
    await limiter.enter(limit)
    valkey.freeze()
    third = await limiter.enter(limit)
    assert third.headers["x-gateway-limits"] == "local"
    assert third.headers["x-ratelimit-remaining-requests"] == "2"  # it knows what it let in itself
    assert limiter.counting.state()["valkey"] == "down"
    assert "rate limits are local" in (limiter.counting.trouble or "")
    valkey.thaw()
    await until(lambda: limiter.counting.trouble is None)
    assert "x-gateway-limits" not in (await limiter.enter(limit)).headers


async def test_what_was_let_in_meanwhile_is_counted_for_all_when_the_server_is_back(
    build: Build, valkey: Valkey
) -> None:
    here, there = [await build(valkey.url, deadline_seconds=0.3) for _ in range(2)]
    limit, tokens = applied(KEY, requests_per_minute=10), applied(KEY, tokens_per_minute=1000)
    assert await count_admitted([here], 2, limit) == 2
    valkey.freeze()
    for _ in range(3):  # the first of them the server counts itself, when it thaws
        await here.enter(limit)
    ended = await here.enter(tokens, estimate=TokenEstimate(100, 700))
    ended.leave(100, 100)
    await here.enter(tokens, estimate=TokenEstimate(100, 100))
    valkey.thaw()
    await until(lambda: here.counting.trouble is None and here.counting.state()["untold"] == 0)
    await until(lambda: there.counting.trouble is None)
    await there.shared.probe(5.0)
    assert await count_admitted([there], 20, limit) == 5
    assert (await there.enter(tokens)).headers["x-ratelimit-remaining-tokens"] == "600"


async def test_a_killed_server_that_forgot_all_learns_who_runs(build: Build, valkey: Valkey) -> None:
    limiter = await build(valkey.url, deadline_seconds=0.3)
    limit = applied(KEY, concurrent_requests=2)
    before = await limiter.enter(limit)
    valkey.kill()
    during = await limiter.enter(limit)
    assert during.headers == {"x-gateway-limits": "local"}
    with pytest.raises(RateLimited):
        await limiter.enter(limit)
    valkey.start_again()
    await until(lambda: limiter.counting.trouble is None)
    other = await build(valkey.url)
    with pytest.raises(RateLimited):
        await other.enter(limit)
    before.leave(0, 0)
    during.leave(0, 0)
    await until(lambda: limiter.counting.state()["untold"] == 0)
    await limiter.shared.probe()
    await other.enter(limit)
    await other.enter(limit)


async def test_a_server_that_was_never_there(build: Build) -> None:
    limiter = await build("redis://127.0.0.1:1")
    assert limiter.counting.state()["mode"] == "local"
    assert (await limiter.enter(applied(requests_per_minute=1))).headers["x-gateway-limits"] == "local"


async def test_cancelling_leaks_no_place(build: Build, valkey: Valkey) -> None:
    limiter = await build(valkey.url)
    limit = applied(KEY, concurrent_requests=1)
    for turns in range(30):
        task = asyncio.create_task(limiter.enter(limit))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result().leave(0, 0)
        async with asyncio.timeout(10):
            while True:
                try:
                    (await limiter.enter(limit)).leave(0, 0)
                    break
                except RateLimited:
                    await asyncio.sleep(0.01)
        await until(lambda: limiter.counting.state()["untold"] == 0)


async def test_windows_are_forgotten_by_the_server(build: Build, valkey: Valkey) -> None:
    limiter = await build(valkey.url, window_seconds=0.2, lease_seconds=0.3)
    limit = applied(KEY, requests_per_minute=5, concurrent_requests=1)
    (await limiter.enter(limit)).leave(0, 0)
    async with asyncio.timeout(10):
        while await limiter.shared._client.dbsize():
            await asyncio.sleep(0.05)


async def test_who_is_cancelled_while_asking_the_server_ends(valkey: Valkey) -> None:
    """Whatever it is just doing: else a gateway that stops would wait for ever for who tells of its last request."""
    client = valkey_client(valkey.url, 5.0)

    async def ask_for_ever() -> None:
        while True:
            await client.ping()

    await client.ping()
    for turns in range(50):
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        ended, _ = await asyncio.wait([asking], timeout=5)
        asking.cancel()
        assert ended, turns
    await client.aclose()


async def test_a_server_that_takes_no_writes_is_not_up(
    build: Build, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that was left behind by a failover, or one without memory, answers all the same."""
    caplog.set_level("INFO")
    limiter = await build(valkey.url)
    with Redis.from_url(valkey.url) as server:
        server.replicaof("127.0.0.1", "1")
        granted = await limiter.enter(applied(KEY, requests_per_minute=5))
        assert granted.headers["x-gateway-limits"] == "local"
        later = await build(valkey.url)
        assert later.counting.trouble == "Valkey does not answer (ReadOnlyError): rate limits are local"
        for _ in range(3):
            await limiter.counting.look()
        assert limiter.counting.state()["valkey"] == "down"
        assert sum("limits are shared" in record.message for record in caplog.records) == 1  # at the beginning
        server.replicaof("NO", "ONE")
        await until(lambda: limiter.counting.trouble is None)
    assert "x-gateway-limits" not in (await limiter.enter(applied(KEY, requests_per_minute=5))).headers


async def test_the_rights_that_are_documented_are_enough(
    build: Build, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    documented = re.search(r"ACL SETUSER gateway (on .*?)\n *```", DOCUMENTATION.read_text(), re.DOTALL)
    assert documented is not None
    with Redis.from_url(valkey.url) as server:
        server.execute_command("ACL SETUSER", "gateway", *documented[1].replace("PASSWORD", "secret").split())
        url = valkey.url.replace("redis://", "redis://gateway:secret@")
        limiter = await build(url, lease_seconds=0.3)
        limits = applied(KEY, tokens_per_minute=1000), applied(concurrent_requests=2)
        first, second = [await limiter.enter(*limits, estimate=TokenEstimate(10, 10)) for _ in range(2)]
        await asyncio.sleep(0.2)  # its lease is prolonged
        first.leave(1, 1)
        assert limiter.shared is not None
        limiter.shared.count("counted-here", 1)
        second.leave(20, 0)
        await until(lambda: limiter.counting.state()["untold"] == 0)
        async with shared_store(ValkeyRegistry(url, 1.0, lease_seconds=0.3), 5.0, time.monotonic) as store:
            for number, keep in enumerate((True, False)):
                recording, _ = await store.claim(IdempotencyKey("p", f"{number}"), b"f" * 32)
                await asyncio.sleep(1.1)
                recording.begin(AnswerHead(200, {}))
                await recording.write(b"answer", completes=True)
                recording.end(keep=keep)
            async with shared_store(ValkeyRegistry(url, 1.0), 5.0, time.monotonic) as other:
                await until(lambda: not store._telling)
                _, is_first = await other.claim(IdempotencyKey("p", "0"), b"f" * 32)
                assert not is_first
        denied = server.acl_log()
    assert {entry["object"] for entry in denied} <= {"client|setinfo"}
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


async def test_the_log_says_what_the_server_has_refused(
    build: Build, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = await build(valkey.url.replace("redis://", "redis://gateway:secret@"))
    assert "invalid username-password pair" in limiter.counting.refusal["detail"]
    with Redis.from_url(valkey.url) as server:
        server.execute_command("ACL SETUSER", "gateway", "on", ">secret", "~llmgateway:*", "+@all")
        await until(lambda: limiter.counting.trouble is None)
        server.execute_command("ACL SETUSER", "gateway", "-hset")
        await limiter.enter(applied(KEY, requests_per_minute=5))
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "hset" in vars(told)["detail"]
    assert "secret" not in str(vars(told))
    assert limiter.counting.refusal == {"detail": vars(told)["detail"]}  # for who starts the gateway
