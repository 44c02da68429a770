"""Finding a request and its trace, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from proxy.domain.errors import NotServing
from proxy.domain.request_log import RequestStatus
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.traces import TraceRow, TraceRows
from tests.traces.conftest import FALLEN_BACK, PLAIN, book, row

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def test_a_request_is_found_by_its_id_and_by_its_row_s(database: Database) -> None:
    mine = row("mine", timestamp=NOW)
    await book(database, (mine, FALLEN_BACK), (row("other"), PLAIN))
    for asked in ("mine", str(mine.id)):
        found = await LedgerRequestArchive(database).find(asked)
        assert found is not None
        assert (found.row, found.trace, found.others) == (mine, FALLEN_BACK, [])


@pytest.mark.parametrize(
    "asked", ["nobody's", "8e03978e-40d5-43dd-bc93-6894a57f9324", "", "x" * 129, "a b", "é", "\x00", "a/b", "'; --"]
)
async def test_what_is_not_there_is_not_found(database: Database, asked: str) -> None:
    await book(database, (row("mine"), FALLEN_BACK))
    assert await LedgerRequestArchive(database).find(asked) is None


async def test_a_request_without_a_trace_is_found(database: Database) -> None:
    await book(database, (row("mine"), None))
    found = await LedgerRequestArchive(database).find("mine")
    assert found is not None
    assert found.trace is None


async def test_of_requests_with_one_id_the_newest_is_shown_and_each_by_its_row(database: Database) -> None:
    older, newer = row("twice", timestamp=NOW - timedelta(hours=1)), row("twice", timestamp=NOW)
    await book(database, (older, FALLEN_BACK), (newer, None))
    archive = LedgerRequestArchive(database)
    by_id, by_row = await archive.find("twice"), await archive.find(str(older.id))
    assert by_id is not None
    assert by_row is not None
    assert (by_id.row, by_id.trace, by_id.others) == (newer, None, [older])
    assert (by_row.row, by_row.trace, by_row.others) == (older, FALLEN_BACK, [newer])


async def test_of_rows_of_one_moment_the_one_with_the_trace_is_shown(database: Database) -> None:
    """A call that lost against a faster one is booked beside its request."""
    for _ in range(5):
        name = uuid4().hex
        lost, won = row(name, timestamp=NOW, status=RequestStatus.INTERRUPTED), row(name, timestamp=NOW)
        await book(database, (lost, None), (won, FALLEN_BACK))
        found = await LedgerRequestArchive(database).find(name)
        assert found is not None
        assert (found.row, found.others) == (won, [lost])


async def test_a_trace_of_a_later_version_hides_no_row(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    mine = row("mine")
    await book(database, (mine, None))
    await TraceRows(database).write([TraceRow(mine.id, mine.request_id, mine.timestamp, '{"v":99}')])
    found = await LedgerRequestArchive(database).find("mine")
    assert found is not None
    assert found.trace is None
    assert "trace not read" in caplog.text


async def test_a_database_that_is_away_says_when_to_come_back(sqlite_url: str, tmp_path: Path) -> None:
    async with open_database(sqlite_url) as database:
        (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")
        with pytest.raises(NotServing):
            await LedgerRequestArchive(database).find("mine")
