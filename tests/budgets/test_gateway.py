"""Budgets as clients see them: a whole gateway on sockets, in which each call costs what is set aside for it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from proxy.application.allowances import Rulebook
from proxy.domain.budgets import Budget, Period, Window
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.migrations import migrate
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import USD, a_budget, leases, put, spent
from tests.conftest import StartGateway
from tests.harness import COMPLETION, USAGE, TestGateway, Upstream, fails, says, stall
from tests.persistence.test_arrival import Server, running_server, server

__all__ = ["running_server", "server"]  # fixtures
CALL = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
CENT = USD // 100
TOTAL = Window(Period.TOTAL)

Open = Callable[..., Awaitable[TestGateway]]


@pytest.fixture
def open_gateway(start_gateway: StartGateway, upstream: Upstream, tmp_path: Path) -> Open:
    """Starts a gateway with that budget for everyone; a call costs a cent, by the price and by what upstream says."""
    upstream.answer(says({**COMPLETION, "usage": {**COMPLETION["usage"], "cost": 0.01}}))
    prices = {"input_usd_per_1m_tokens": 0, "output_usd_per_1m_tokens": 0, "request_fee_usd": 0.01}
    chat = {"deployments": [{"provider": "up", "model": "m", "prices": prices}]}
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps({"providers": {"up": {"base_url": upstream.url}}, "models": {"chat": chat}}))

    async def opening(budget: Budget, url: str, **settings: Any) -> TestGateway:
        book = Rulebook(budgets=[budget])
        quiet = {"llmgateway_require_keys": "never", "retry_max_retries": 0, **settings}
        return await start_gateway(database_url=url, rules=lambda: book, llmgateway_config=str(path), **quiet)

    return opening


async def status(gateway: TestGateway) -> int:
    return (await gateway.chat(CALL))[0]


async def until_booked(database: Database, budget: Budget, amount: int) -> None:
    async with asyncio.timeout(30):
        while await spent(database, budget) != amount:
            await asyncio.sleep(0.02)


async def until_settled(database: Database, budget: Budget, amount: int) -> None:
    """All is booked: that much is spent, and nothing is leased."""
    async with asyncio.timeout(30):
        while (await spent(database, budget), sum((await leases(database, budget)).values())) != (amount, 0):
            await asyncio.sleep(0.05)


async def test_a_crowd_gets_what_the_budget_has_money_for(
    open_gateway: Open, database: Database, database_url: str, upstream: Upstream
) -> None:
    budget = await put(database, a_budget("1", window=TOTAL))
    gateway = await open_gateway(budget, database_url)
    statuses = Counter(await asyncio.gather(*(status(gateway) for _ in range(200))))
    assert statuses == {200: 100, 429: 100}
    assert upstream.calls == 100
    await until_settled(database, budget, 100 * CENT)


async def test_what_is_spent_is_what_the_reports_say(
    open_gateway: Open, database: Database, database_url: str, upstream: Upstream
) -> None:
    """Also of costs that have more digits than rows."""
    budget = await put(database, a_budget("1", window=TOTAL))
    gateway = await open_gateway(budget, database_url)
    costs = ("0.0000000000004", "0.0000000000006", "0.0000000000025", "0.0000000000035", "0.00123456789012345678")
    bodies = [json.dumps(COMPLETION | {"usage": USAGE | {"cost": 0.5}}).replace("0.5", cost) for cost in costs]
    upstream.answer(*(says(body.encode()) for body in bodies))
    for _ in costs:
        assert await status(gateway) == 200
    sum_of_rows = 0 + 1 + 2 + 4 + 1_234_567_890
    await until_settled(database, budget, sum_of_rows)
    _, report = await gateway.get("v1/usage?by=model")
    assert int(Decimal(report["total"]["cost_usd"]) * USD) == sum_of_rows


async def test_a_crowd_at_two_gateways(
    open_gateway: Open, database: Database, database_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    budget = await put(database, a_budget("1", window=TOTAL))
    gateways = [await open_gateway(budget, database_url, llmgateway_data_dir=str(tmp_path)) for _ in range(2)]
    await asyncio.gather(*(status(gateways[n % 2]) for n in range(200)))
    for gateway in gateways:
        while await status(gateway) != 429:
            pass
    assert upstream.calls == 100
    await until_settled(database, budget, 100 * CENT)


async def test_the_refusal_names_the_budget_what_is_spent_and_when_there_is_more(
    open_gateway: Open, database: Database, database_url: str
) -> None:
    budget = await put(database, a_budget("0.025", name="platform"))
    gateway = await open_gateway(budget, database_url)
    assert [await status(gateway) for _ in range(2)] == [200, 200]
    await until_booked(database, budget, 2 * CENT)
    code, headers, body = await gateway.chat(CALL)
    assert code == 429
    assert (body["error"]["type"], body["error"]["code"]) == ("rate_limit_error", "budget_exceeded")
    resets_at = budget.window.resets_at(datetime.now(UTC))
    assert resets_at is not None
    for told in (
        "'platform' of $0.025",
        "up to $0.01",
        "$0.02 spent",
        "reserved",
        f"resets at {resets_at.isoformat()}",
    ):
        assert told in body["error"]["message"]
    assert headers["x-should-retry"] == "false"
    assert headers["x-gateway-budget-warning"] == "platform; spent=0.02; amount=0.025"
    assert int(headers["retry-after"]) > 0
    row = (await gateway.rows(3))[0]
    assert row.status.value == "refused"


async def test_a_budget_without_end_names_no_time(open_gateway: Open, database: Database, database_url: str) -> None:
    budget = await put(database, a_budget("0", window=TOTAL))
    code, headers, body = await (await open_gateway(budget, database_url)).chat(CALL)
    assert code == 429
    assert body["error"]["message"].endswith("It does not reset.")
    assert "retry-after" not in headers


@pytest.mark.parametrize("kind", ["context_window", "content_policy"])
async def test_money_is_set_aside_for_the_chain_that_may_follow_a_refusal(
    open_gateway: Open, sqlite_url: str, upstream: Upstream, tmp_path: Path, kind: str
) -> None:
    """The fallback is dearer than the budget has money for, and in no plan before the first model has refused."""
    path = tmp_path / "gateway.yaml"
    config = json.loads(path.read_text())
    fee = {"input_usd_per_1m_tokens": 0, "output_usd_per_1m_tokens": 0, "request_fee_usd": 0.05}
    config["models"]["large"] = {"deployments": [{"provider": "up", "model": "l", "prices": fee}]}
    path.write_text(json.dumps({**config, "fallbacks": {kind: {"chat": ["large"]}}}))
    async with open_database(sqlite_url) as database:
        budget = await put(database, a_budget("0.02", window=TOTAL))
    code, _, body = await (await open_gateway(budget, sqlite_url)).chat(CALL)
    assert (code, body["error"]["code"], upstream.calls) == (429, "budget_exceeded", 0)
    assert "up to $0.05" in body["error"]["message"]


async def test_a_soft_budget_warns_and_lets_in(open_gateway: Open, database: Database, database_url: str) -> None:
    budget = await put(database, a_budget("0.02", name="soft", is_hard=False, warn_percent=50))
    gateway = await open_gateway(budget, database_url)
    answers = [await gateway.chat(CALL) for _ in range(4)]
    assert [code for code, _, _ in answers] == [200] * 4
    assert answers[-1][1]["x-gateway-budget-warning"].startswith("soft; spent=0.0")


async def test_money_is_free_again_after_every_kind_of_end(
    open_gateway: Open, database: Database, database_url: str, upstream: Upstream
) -> None:
    """What is charged is charged, and all the rest can be spent: nothing stays set aside."""
    budget = await put(database, a_budget("0.03", window=TOTAL))
    gateway = await open_gateway(budget, database_url)
    well = upstream.script[0]
    for answering in (fails(400), fails(500), says(b"nonsense")):
        upstream.answer(answering)
        assert (await gateway.raw_chat(CALL))[0] >= 400
    upstream.answer(stall)  # type: ignore[arg-type]
    hanging = asyncio.create_task(gateway.raw_chat(CALL))
    async with asyncio.timeout(10):
        while not upstream.calls:
            await asyncio.sleep(0.01)
    hanging.cancel()
    upstream.answer(well)
    await gateway.rows(4)
    while await status(gateway) != 429:
        pass
    await until_settled(database, budget, 3 * CENT)


async def test_rows_that_follow_an_absurd_cost_are_booked(
    open_gateway: Open, database: Database, database_url: str, upstream: Upstream
) -> None:
    budget = await put(database, a_budget("1", window=TOTAL, is_hard=False))
    gateway = await open_gateway(budget, database_url)
    well = upstream.script[0]
    absurd = says({**COMPLETION, "usage": {**COMPLETION["usage"], "cost": 9_300_000}})
    upstream.answer(absurd, absurd, well)
    assert await status(gateway) == 200
    await gateway.rows(1)
    assert [await status(gateway) for _ in range(3)] == [200] * 3
    assert len(await gateway.rows(4)) == 4
    assert await spent(database, budget) == 2**63 - 1


async def test_a_role_that_may_not_lease_is_told_to_clients_and_once_to_the_log(
    open_gateway: Open, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
        budget = await put(database, a_budget("1", window=TOTAL))
        async with session(database) as to:
            await to.execute("CREATE ROLE limited LOGIN")
            await to.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO limited")
            await to.execute("REVOKE ALL ON budget_spend FROM limited")
    gateway = await open_gateway(budget, url.replace("postgres:@", "limited:@"))
    for _ in range(2):
        code, _, body = await gateway.chat(CALL)
        assert code == 503
        assert (
            "cannot be checked: the database does not answer (InsufficientPrivilegeError)" in body["error"]["message"]
        )
    told = [each for each in caplog.records if each.name.endswith("budgets.book")]
    assert [(each.msg, each.__dict__["reason"]) for each in told] == [
        ("budgets cannot be leased, requests are refused", "InsufficientPrivilegeError")
    ]


async def test_while_the_database_is_away_what_is_leased_is_spent_and_then_nothing_more(
    open_gateway: Open, server: Server, upstream: Upstream
) -> None:
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
        budget = await put(database, a_budget("1", window=TOTAL))
    gateway = await open_gateway(budget, url)
    assert await status(gateway) == 200
    server.freeze()
    calls = 1
    while (answer := await gateway.chat(CALL))[0] == 200:
        calls += 1
    code, headers, body = answer
    assert 1 < calls == upstream.calls < 100
    assert (code, body["error"]["code"]) == (503, "service_unavailable")
    assert "cannot be checked" in body["error"]["message"]
    assert int(headers["retry-after"]) > 0
    server.thaw()
    async with asyncio.timeout(60):
        while (code := await status(gateway)) != 429:
            assert code in (200, 503)
    async with open_database(url) as database:
        await until_settled(database, budget, 100 * CENT)
    assert upstream.calls == 100
