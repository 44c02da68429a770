"""Behind a pooler that gives each transaction another connection of the server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import known_migrations, migrate
from proxy.infrastructure.persistence.retention import LedgerUpkeep
from proxy.infrastructure.persistence.sessions import session
from tests.admin.company import done
from tests.harness import ADMINISTERED, Upstream, gateway_over
from tests.persistence.test_arrival import health_when
from tests.pooler import pooled_url

_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


async def test_requests_are_booked_and_charged(postgres_url: str, tmp_path: Path, upstream: Upstream) -> None:
    async with pooled_url(postgres_url, tmp_path) as url, gateway_over(upstream.url, url, **ADMINISTERED) as gateway:
        key = (await done(gateway, "POST", "/keys", {"name": "app"}, ADMINISTERED["llmgateway_master_key"]))["key"]
        budget = {"name": "all", "scope": "gateway", "amount_usd": "1", "period": "total"}
        await done(gateway, "POST", "/budgets", budget, ADMINISTERED["llmgateway_master_key"])
        answers = await asyncio.gather(*(gateway.chat(Authorization=f"Bearer {key}") for _ in range(20)))
        assert {status for status, _, _ in answers} == {200}
        rows = await gateway.rows(20)
        report = await health_when(gateway, lambda report: report["ledger"]["waiting_rows"] == 0)
        assert (report["status"], report["problems"]) == ("ok", [])
        async with open_database(postgres_url) as database, session(database) as to:
            ((spent,),) = await to.fetch("SELECT sum(picodollars) FROM budget_spend")
        assert spent == sum(row.reported_cost.usd for row in rows if row.reported_cost) * 10**12


async def test_migrations_give_their_lock_back(empty_postgres_url: str, tmp_path: Path) -> None:
    async with pooled_url(empty_postgres_url, tmp_path) as url, open_database(url) as database:
        applied = await asyncio.gather(migrate(database), migrate(database))
        assert sorted(applied) == [[], known_migrations()]
        async with session(database) as to:
            assert [tuple(row) for row in await to.fetch(_LOCKS)] == [(0,)]


async def test_upkeep_gives_its_lock_back(postgres_url: str, tmp_path: Path) -> None:
    async with pooled_url(postgres_url, tmp_path) as url, open_database(url) as database:
        for _ in range(3):
            await LedgerUpkeep(database, 7, lambda: datetime.now(UTC)).run()
            async with session(database) as to:
                assert [tuple(row) for row in await to.fetch(_LOCKS)] == [(0,)]


async def test_a_pooler_without_transactions_ends_the_start(postgres_url: str, tmp_path: Path) -> None:
    async with pooled_url(postgres_url, tmp_path, has_transactions=False) as url:
        with pytest.raises(asyncpg.ProtocolViolationError, match="let it pool sessions or transactions"):
            async with gateway_over("http://127.0.0.1:1/", url):
                raise AssertionError
