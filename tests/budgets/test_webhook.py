"""Telling a webhook of budgets: what it is told, by one process only, and what happens when it does not listen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp_retry import ListRetry, RetryOptionsBase

from proxy.application.allowances import Rulebook
from proxy.domain.access.scopes import EACH, Scope, Subject
from proxy.domain.budgets import Period, Window
from proxy.infrastructure.budgets.notices import CLAIM_SECONDS, Notice, NoticeClaims
from proxy.infrastructure.budgets.webhook import BudgetWebhook, patient_retries, telling
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import session
from tests.budgets.conftest import a_budget, put
from tests.budgets.test_notices import NOW, notices
from tests.conftest import StartGateway


@dataclass
class Receiver:
    """Somebody's server. It answers with the statuses in turn, with the last one ever after."""

    statuses: list[int] = field(default_factory=lambda: [204])
    told: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def hook(self, request: web.Request) -> web.Response:
        self.told.append(await request.json())
        self.headers.append(dict(request.headers))
        self.heard.set()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    def events(self) -> list[str]:
        return [one["event"] for one in self.told]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.hook)
    app.router.add_route("*", "/elsewhere", receiver.hook)
    server = TestServer(app)
    await server.start_server(access_log=None)
    receiver.url = str(server.make_url("/hook"))
    yield receiver
    await server.close()


def at_once(attempts: int = 3) -> RetryOptionsBase:
    """The retries of production, without their pauses."""
    patient = patient_retries()
    return ListRetry(
        [0.0] * (attempts + 1),
        statuses=set(patient.statuses),
        exceptions=set(patient.exceptions),
        retry_all_server_errors=patient.retry_all_server_errors,
        evaluate_response_callback=patient.evaluate_response_callback,
    )


StartWebhook = Callable[..., Awaitable[BudgetWebhook]]


@pytest.fixture
async def tell(database: Database, receiver: Receiver) -> AsyncIterator[StartWebhook]:
    """Starts a webhook of a process; time is `now[0]`."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def begin(
            now: list[float] | None = None, url: str | None = None, queue_notices: int = 1000
        ) -> BudgetWebhook:
            clock = now or [1000.0]
            webhook = BudgetWebhook(
                url or receiver.url, http, NoticeClaims(database), at_once(), lambda: clock[0], queue_notices
            )
            await stack.enter_async_context(telling(webhook))
            return webhook

        yield begin


async def offer(webhook: BudgetWebhook, *offered: Notice) -> None:
    for notice in offered:
        webhook.offer(notice)
    await webhook.idle()


async def test_what_it_is_told(tell: StartWebhook, receiver: Receiver) -> None:
    budget = a_budget("10", Subject(Scope.TEAM, "t-1"), name="Grüße", is_hard=False)
    (notice,) = notices(budget, "8.125")
    await offer(await tell(), notice)
    (message,) = receiver.told
    assert message == {
        "id": str(notice.key.id),
        "event": "budget.warning",
        "occurred_at": "2026-11-23T05:20:00+00:00",
        "budget": {
            "id": str(budget.id),
            "name": "Grüße",
            "scope": "team",
            "subject": "t-1",
            "amount_usd": "10",
            "period": "month",
            "window_seconds": None,
            "hard": False,
            "warn_percent": 80,
        },
        "threshold_usd": "8",
        "spent_usd": "8.125",
        "period_start": "2026-11-01T00:00:00+00:00",
        "resets_at": "2026-12-01T00:00:00+00:00",
    }
    assert receiver.headers[0]["Idempotency-Key"] == message["id"]
    assert "Authorization" not in receiver.headers[0]


async def test_once_for_each_threshold_period_and_subject(tell: StartWebhook, receiver: Receiver) -> None:
    budget, webhook = a_budget("1", Subject(Scope.END_USER, EACH)), await tell()
    for _ in range(3):
        await offer(webhook, *notices(budget, "1", subject="alice"))
    await offer(webhook, *notices(budget, "2", subject="alice"), *notices(budget, "0.9", subject="bob"))
    await offer(webhook, *notices(budget, "0.9", NOW + timedelta(days=31), "alice"))
    assert [(one["event"], one["budget"]["subject"], one["period_start"][:7]) for one in receiver.told] == [
        ("budget.warning", "alice", "2026-11"),
        ("budget.exceeded", "alice", "2026-11"),
        ("budget.warning", "bob", "2026-11"),
        ("budget.warning", "alice", "2026-12"),
    ]
    assert len({one["id"] for one in receiver.told}) == 4


async def test_one_of_several_processes(tell: StartWebhook, receiver: Receiver) -> None:
    budget = a_budget("1")
    processes = [await tell() for _ in range(4)]
    for process in processes:
        for notice in notices(budget, "1"):
            process.offer(notice)
    for process in processes:
        await process.idle()
    assert sorted(receiver.events()) == ["budget.exceeded", "budget.warning"]


async def test_a_raised_budget_is_told_of_anew(tell: StartWebhook, receiver: Receiver) -> None:
    budget, webhook = a_budget("1"), await tell()
    await offer(webhook, *notices(budget, "1"))
    await offer(webhook, *notices(replace(budget, amount_usd=Decimal(2)), "1.7"))
    assert [one["threshold_usd"] for one in receiver.told] == ["0.8", "1", "1.6"]


@pytest.mark.parametrize("status", [500, 503, 408, 429])
async def test_what_passes_is_tried_again(tell: StartWebhook, receiver: Receiver, status: int) -> None:
    receiver.statuses = [status, status, 200]
    await offer(await tell(), *notices(a_budget("1"), "0.8"))
    assert receiver.events() == ["budget.warning"] * 3
    assert len({one["id"] for one in receiver.told}) == 1


@pytest.mark.parametrize("status", [302, 307, 308, 400, 404])
async def test_what_does_not_pass_is_not_and_redirects_are_not_followed(
    tell: StartWebhook, receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [status]
    await offer(await tell(), *notices(a_budget("1"), "0.8"))
    assert receiver.events() == ["budget.warning"]
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert record.__dict__["reason"] == f"HTTP {status}"


async def test_what_was_not_delivered_is_told_later(tell: StartWebhook, receiver: Receiver, database: Database) -> None:
    now, later = [1000.0], notices(a_budget("1"), "0.8")
    webhook = await tell(now)
    receiver.statuses = [503]
    await offer(webhook, *later)
    receiver.statuses, attempts = [200], len(receiver.told)
    await offer(webhook, *later)
    assert len(receiver.told) == attempts  # not at once
    now[0] += CLAIM_SECONDS + 1
    async with session(database) as to:
        await to.execute("UPDATE budget_notices SET claimed_at = $1", NOW - timedelta(days=365))
    await offer(webhook, *later)
    assert len(receiver.told) == attempts + 1
    async with session(database) as to:
        ((delivered_at,),) = await to.fetch("SELECT delivered_at FROM budget_notices")
    assert delivered_at is not None


async def test_another_process_tells_what_a_dead_one_has_claimed(
    tell: StartWebhook, receiver: Receiver, database: Database
) -> None:
    (notice,) = notices(a_budget("1"), "0.8")
    now = datetime.now(UTC)
    claims = NoticeClaims(database)
    assert await claims.claim(notice.key, now)
    assert not await claims.claim(notice.key, now + timedelta(seconds=CLAIM_SECONDS - 1))
    assert await claims.claim(notice.key, now + timedelta(seconds=CLAIM_SECONDS))
    await claims.delivered(notice.key, now)
    assert not await claims.claim(notice.key, now + timedelta(days=30))
    await offer(await tell(), notice)
    assert receiver.told == []


async def test_a_rolling_window_tells_at_most_once_in_its_length(database: Database) -> None:
    """Midnight is no new beginning for it."""
    budget, claims = a_budget("1", window=Window(Period.ROLLING, 86_400)), NoticeClaims(database)
    evening = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    told, again = (notices(budget, "0.8", moment)[0].key for moment in (evening, evening + timedelta(seconds=2)))
    assert told != again
    assert await claims.claim(told, evening, 86_400)
    assert not await claims.claim(again, evening + timedelta(seconds=2), 86_400)  # another process may be at it
    await claims.delivered(told, evening)
    assert not await claims.claim(again, evening + timedelta(seconds=86_399), 86_400)
    assert await claims.claim(again, evening + timedelta(seconds=86_400), 86_400)


async def test_a_rolling_window_whose_notice_was_not_delivered_is_told_in_the_next_period(database: Database) -> None:
    budget, claims = a_budget("1", window=Window(Period.ROLLING, 86_400)), NoticeClaims(database)
    evening = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    later = evening + timedelta(seconds=CLAIM_SECONDS)
    failed, again = (notices(budget, "0.8", moment)[0].key for moment in (evening, later))
    assert await claims.claim(failed, evening, 86_400)
    assert await claims.claim(again, later, 86_400)


async def test_two_moments_of_a_rolling_window_are_told_once(tell: StartWebhook, receiver: Receiver) -> None:
    budget, webhook = a_budget("1", window=Window(Period.ROLLING, 86_400)), await tell()
    await offer(webhook, *notices(budget, "0.8"), *notices(budget, "0.8", NOW + timedelta(days=1)))
    assert receiver.events() == ["budget.warning"]


async def test_too_many_are_dropped_and_may_be_offered_again(tell: StartWebhook, receiver: Receiver) -> None:
    webhook = await tell(queue_notices=2)
    all_of_them = [*notices(a_budget("1"), "1"), *notices(a_budget("1"), "1")]
    await offer(webhook, *all_of_them)
    assert len(receiver.told) == 2
    await offer(webhook, *all_of_them)
    assert len(receiver.told) == 4
    assert len({one["id"] for one in receiver.told}) == 4


async def test_nobody_is_told_the_url(tell: StartWebhook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await offer(await tell(url="http://127.0.0.1:1/services/very-secret"), *notices(a_budget("1"), "0.8"))
    assert any(record.message == "webhook not told of a budget" for record in caplog.records)
    assert "very-secret" not in caplog.text


async def test_while_the_database_is_away_it_waits(
    tell: StartWebhook, receiver: Receiver, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    now, offered = [1000.0], notices(a_budget("1"), "0.8")
    async with session(database) as to:
        await to.execute("ALTER TABLE budget_notices RENAME TO hidden")
    webhook = await tell(now)
    await offer(webhook, *offered)
    async with session(database) as to:
        await to.execute("ALTER TABLE hidden RENAME TO budget_notices")
    await offer(webhook, *offered)
    assert receiver.told == []
    assert "notice of a budget put off" in caplog.messages
    now[0] += 31
    await offer(webhook, *offered)
    assert len(receiver.told) == 1


async def test_what_was_told_long_ago_is_forgotten_but_for_long_periods(tell: StartWebhook, database: Database) -> None:
    windows = [
        Window(Period.MONTH),
        Window(Period.ROLLING, 3600),
        Window(Period.TOTAL),
        Window(Period.ROLLING, 101 * 86_400),
    ]
    budgets = [await put(database, a_budget("1", window=window)) for window in windows]
    webhook = await tell()
    await offer(webhook, *(notice for budget in budgets for notice in notices(budget, "0.8")))
    async with session(database) as to:
        await to.execute("UPDATE budget_notices SET claimed_at = $1", datetime(2020, 1, 1, tzinfo=UTC))
    await webhook.forget()
    async with session(database) as to:
        rows = await to.fetch("SELECT budget_id FROM budget_notices")
    assert {str(budget_id) for (budget_id,) in rows} == {str(budget.id) for budget in budgets[2:]}


async def test_a_gateway_tells(
    receiver: Receiver, start_gateway: StartGateway, database: Database, database_url: str
) -> None:
    budget = await put(database, a_budget("0.001", is_hard=False))
    book = Rulebook(budgets=[budget])
    gateway = await start_gateway(database_url=database_url, rules=lambda: book, budget_webhook_url=receiver.url)
    assert (await gateway.chat())[0] == 200
    async with asyncio.timeout(20):
        await receiver.heard.wait()
    assert receiver.events()[0] == "budget.warning"
    assert receiver.told[0]["spent_usd"] == "0.00123"
