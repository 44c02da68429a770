"""A company, and a gateway that asks for keys, on either engine."""

from __future__ import annotations

import pytest

from tests.access.tenancy import Tenancy
from tests.admin.company import MASTER, Company, company
from tests.conftest import StartGateway
from tests.harness import TestGateway


@pytest.fixture
def tenancy(database_url: str) -> Tenancy:
    return Tenancy(database_url)


@pytest.fixture
async def firm(tenancy: Tenancy) -> Company:
    return await company(tenancy)


@pytest.fixture
async def gateway(start_gateway: StartGateway, database_url: str) -> TestGateway:
    return await start_gateway(database_url=database_url, llmgateway_master_key=MASTER)
