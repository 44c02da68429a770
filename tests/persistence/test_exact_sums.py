"""Sums are exact on both engines. The large version is `benchmarks/exact_sums.py`."""

from __future__ import annotations

from benchmarks.exact_sums import differences, fill, upkeep
from proxy.domain.usage_report import Dimension
from proxy.infrastructure.persistence.database import Database

ONE_PICODOLLAR_MORE = """
    UPDATE request_logs SET reported_cost_usd = reported_cost_usd + 0.000000000001
    WHERE id = (SELECT id FROM request_logs WHERE cost_source = 'reported' ORDER BY id LIMIT 1)
"""


async def test_sums_from_rows_and_from_rollups_are_those_of_decimal_arithmetic(database: Database) -> None:
    expected = await fill(database, 5_000)
    assert await differences(database, expected) == []
    await upkeep(database)
    assert await differences(database, expected) == []


async def test_a_picodollar_too_much_is_found_in_every_sum(database: Database) -> None:
    expected = await fill(database, 500)
    await database.request_logs.raw(ONE_PICODOLLAR_MORE)
    for _ in range(2):
        found = await differences(database, expected)
        assert any(one.startswith("total since") for one in found)
        for by in Dimension:
            assert any(one.startswith(f"cost of {by} ") for one in found)
        await upkeep(database)
