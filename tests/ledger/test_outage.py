"""The database goes away under load and comes back. The large version is `benchmarks/ledger_outage.py`."""

from __future__ import annotations

import pytest

from benchmarks.ledger_outage import run


@pytest.mark.parametrize("kind", ["frozen", "stopped", "locked"])
async def test_an_absent_database_costs_no_request_and_no_row(kind: str) -> None:
    outcome = await run(kind, seconds=3, parallel=4)
    assert (outcome.failed, outcome.missing) == (0, 0)
    assert outcome.requests > 200
