"""Gateways that share a database, and keys for them."""

from __future__ import annotations

import pytest

from tests.access.tenancy import Tenancy


@pytest.fixture
def tenancy(database_url: str) -> Tenancy:
    """On each engine."""
    return Tenancy(database_url)


@pytest.fixture
def sqlite_tenancy(sqlite_url: str) -> Tenancy:
    """For what is the same on both engines."""
    return Tenancy(sqlite_url)
