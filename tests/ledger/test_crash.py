"""Real processes, really killed. The large version is `benchmarks/ledger_crash.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ledger_crash import Clients, crash_rounds

_FEW = Clients(16, pause_seconds=0.02)  # who ask while processes start would else hold them up


@pytest.mark.timeout(300)
async def test_what_was_acknowledged_is_booked_once_after_kill_9(database_url: str, tmp_path: Path) -> None:
    async for one in crash_rounds(tmp_path, database_url, rounds=1, requests=400, clients=_FEW):
        assert one.verdict.is_clean, one.verdict
        assert one.killed == 2
        assert one.verdict.acknowledged > 50
        assert one.verdict.rows >= one.verdict.acknowledged


@pytest.mark.timeout(300)  # half a dozen processes start one after the other
async def test_a_process_under_load_adopts_what_a_killed_one_left(database_url: str, tmp_path: Path) -> None:
    async for one in crash_rounds(tmp_path, database_url, rounds=1, requests=300, processes=2, clients=_FEW):
        assert one.verdict.is_clean, one.verdict
        assert one.killed >= 2
        assert one.requests_meanwhile
        assert one.verdict.acknowledged > 200
        assert one.verdict.rows >= one.verdict.acknowledged
