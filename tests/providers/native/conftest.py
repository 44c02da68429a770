"""Fixtures: services of the native kinds."""

from __future__ import annotations

import pytest

from tests.providers.anthropic_upstream import ANTHROPIC
from tests.providers.conftest import Connect, Provider, connect_kind
from tests.providers.google_upstream import GOOGLE

__all__ = ["connect_kind"]


@pytest.fixture
async def anthropic(connect_kind: Connect) -> Provider:
    """Over an upstream that answers `Hi there!`."""
    return await connect_kind(ANTHROPIC)


@pytest.fixture
async def google(connect_kind: Connect) -> Provider:
    """The same."""
    return await connect_kind(GOOGLE)
