"""Three gateways on machines of their own, as `python -m benchmarks.scale_out` runs them, with little load.

One test, since they are started once: a start costs more than all that is asked of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale_out import Plan, run

_LITTLE = Plan(clients=4, pause_seconds=0.05, seconds=0.2, crowd=30, revoked_within_seconds=20)


@pytest.mark.timeout(300)
async def test_three_gateways_are_one(empty_postgres_url: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    async for figure in run(tmp_path, empty_postgres_url, _LITTLE):
        with subtests.test(figure.text.partition(":")[0]):
            assert figure.is_reached, figure.text
