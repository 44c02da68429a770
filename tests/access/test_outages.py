"""Keys while PostgreSQL is away: who is known serves on, and what changed meanwhile is heeded afterwards."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from tests.access.tenancy import Tenancy
from tests.conftest import StartGateway
from tests.harness import TestGateway
from tests.persistence.test_arrival import Server, running_server, server

__all__ = ["running_server", "server"]  # fixtures


async def status(gateway: TestGateway, secret: str) -> int:
    async with asyncio.timeout(20):
        return (await gateway.chat(Authorization=f"Bearer {secret}"))[0]


async def until(gateway: TestGateway, secret: str, expected: int) -> None:
    async with asyncio.timeout(30):
        while await status(gateway, secret) != expected:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_known_keys_serve_on_and_what_changed_is_heeded_afterwards(
    server: Server, start_gateway: StartGateway, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
    tenancy = Tenancy(url)
    (known, _), (revoked, key), (other, _) = [await tenancy.key() for _ in range(3)]
    gateway = await start_gateway(database_url=url, llmgateway_require_keys="always")
    assert [await status(gateway, secret) for secret in (known, revoked)] == [200, 200]
    if how == "stopped":
        # The last thing that happens; nobody has heard of it when the server goes.
        await tenancy.execute("ALTER TABLE virtual_keys DISABLE TRIGGER ALL")
        await tenancy.change("virtual_keys", key.id, disabled=True)
        await server.stop()
    else:
        server.freeze()
    assert [await status(gateway, secret) for secret in (known, other)] == [200, 503]
    assert [await status(gateway, secret) for secret in (known, known)] == [200, 200]
    if how == "stopped":
        await server.start()
    else:
        server.thaw()
    await until(gateway, other, 200)
    assert await status(gateway, known) == 200
    if how == "stopped":
        await until(gateway, revoked, 401)
        told = [record for record in caplog.records if record.name.endswith("access.changes")]
        assert [record.levelno for record in told] == [logging.WARNING]
    else:
        await tenancy.change("virtual_keys", key.id, disabled=True)
        await until(gateway, revoked, 401)


async def test_a_gateway_that_starts_without_its_database_knows_its_keys_when_it_comes(
    server: Server, start_gateway: StartGateway
) -> None:
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
    secret, key = await Tenancy(url).key()
    await server.stop()
    gateway = await start_gateway(database_url=url)  # whether there are keys decides
    assert (await gateway.chat())[0] == 503
    assert await status(gateway, secret) == 503
    await server.start()
    await until(gateway, secret, 200)
    async with asyncio.timeout(20):
        while (await gateway.chat())[0] != 401:
            await asyncio.sleep(0.02)
    await Tenancy(url).change("virtual_keys", key.id, disabled=True)
    await until(gateway, secret, 401)
