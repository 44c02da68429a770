"""Real processes, really killed. The large version is `benchmarks/ledger_crash.py`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ledger_crash import crash_rounds


async def test_what_was_acknowledged_is_booked_once_after_kill_9(database_url: str, tmp_path: Path) -> None:
    async for verdict in crash_rounds(tmp_path, database_url, rounds=2, requests=400):
        assert (verdict.missing, verdict.duplicates, verdict.wrong) == ([], [], [])
        assert verdict.acknowledged > 50
        assert verdict.rows >= verdict.acknowledged
