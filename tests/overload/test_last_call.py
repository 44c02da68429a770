"""Connections of a server that is going to end: each may bring one more request, and nobody is turned away for it."""

from __future__ import annotations

import asyncio
import time

from tests.gateway.raw_http import connected, request_bytes
from tests.overload.conftest import load_of, shedding_runner, until, url_of

GRACE_SECONDS = 30.0


async def test_who_waits_for_a_turn_is_served_all_the_same() -> None:
    load = load_of(patience_seconds=10)
    load.in_flight = load.most
    async with shedding_runner(load) as runner, connected(url_of(runner)) as connection:
        await connection.send(request_bytes(b"{}"))
        await asyncio.sleep(0.1)
        ending = asyncio.create_task(runner.last_call(GRACE_SECONDS))
        await asyncio.sleep(1.5)  # longer than an idle connection may stay
        load.in_flight = 0
        assert (await connection.answer()).status == 200
        await ending
    assert not any(load.refused.values())


async def test_who_still_waits_when_time_is_up_is_told_so() -> None:
    load = load_of(patience_seconds=10)
    load.in_flight = load.most
    async with shedding_runner(load) as runner, connected(url_of(runner)) as connection:
        await connection.send(request_bytes(b"{}"))
        await asyncio.sleep(0.1)
        await runner.last_call(0.1)
        await runner.cleanup()
        answer = await connection.answer()
        assert (answer.status, answer.closes) == (503, True)


async def test_an_idle_connection_is_closed_after_a_second() -> None:
    async with shedding_runner(load_of()) as runner, connected(url_of(runner)) as connection:
        await until(lambda: runner.server is not None and runner.server.connections)
        await asyncio.sleep(1.2)
        began = time.monotonic()
        ending = asyncio.create_task(runner.last_call(GRACE_SECONDS))
        await asyncio.sleep(0.5)
        await connection.send(request_bytes(b"{}"))
        assert (await connection.answer()).status == 200
        answered = time.monotonic()
        assert await connection.reader.read() == b""
        assert time.monotonic() - answered > 0.9  # for its next request
        await ending
        assert time.monotonic() - began < GRACE_SECONDS / 2


async def test_who_is_refused_meanwhile_is_not_to_come_back_by_the_same_connection() -> None:
    load = load_of()
    load.in_flight = load.most
    async with shedding_runner(load) as runner, connected(url_of(runner)) as connection:
        await until(lambda: runner.server is not None and runner.server.connections)
        ending = asyncio.create_task(runner.last_call(GRACE_SECONDS))
        await asyncio.sleep(0.1)
        await connection.send(request_bytes(b"{}"))
        answer = await connection.answer()
        assert (answer.status, answer.closes) == (503, True)
        await ending


async def test_nor_is_who_is_refused_while_balancers_are_given_time_to_see_that_it_is_leaving() -> None:
    load = load_of()
    load.in_flight = load.most
    async with shedding_runner(load) as runner, connected(url_of(runner)) as connection:
        runner.ask_to_leave()
        await connection.send(request_bytes(b"{}"))
        answer = await connection.answer()
        assert (answer.status, answer.closes) == (503, True)
        assert await connection.is_closed()
