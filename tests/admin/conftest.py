"""A company, and a gateway that asks for keys, on either engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from proxy.infrastructure.persistence.database import open_database
from tests.access.tenancy import Tenancy
from tests.admin.company import MASTER, Company, company
from tests.conftest import StartGateway
from tests.harness import TestGateway


@pytest.fixture
async def tenancy(database_url: str) -> AsyncIterator[Tenancy]:
    async with open_database(database_url) as database:
        yield Tenancy(database_url, database)


@pytest.fixture
async def firm(tenancy: Tenancy) -> Company:
    return await company(tenancy)


@pytest.fixture
async def gateway(start_gateway: StartGateway, database_url: str) -> TestGateway:
    return await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)
