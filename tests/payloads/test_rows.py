"""Payloads in the database: written once, found by id, purged in time; on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from proxy.infrastructure.payloads.preparing import PayloadRow, prepare
from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.purge import Purge
from tests.harness import FakeTime
from tests.payloads.conftest import capture, row

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def payload(name: str = "r", timestamp: datetime = NOW, request: bytes = b"question") -> PayloadRow:
    prepared = prepare(row(name), capture(request, b"\x00\xff answer"), None)
    return PayloadRow(**{**{name: getattr(prepared, name) for name in PayloadRow.__slots__}, "timestamp": timestamp})


async def test_a_payload_comes_back_as_it_was(database: Database) -> None:
    rows = PayloadRows(database)
    written = payload("mine", request=b"x" * 500)
    await rows.write([written, payload("other")])
    for asked in ("mine", str(written.id)):
        (found,) = await rows.find(asked)
        assert (found.id, found.request_id, found.timestamp) == (written.id, "mine", NOW)
        assert found.request is not None
        assert (found.request.body, found.request.full_bytes, found.request.is_truncated) == (b"x" * 100, 500, True)
        assert found.response is not None
        assert (found.response.body, found.response.is_truncated) == (b"\x00\xff answer", False)
        assert found.content_type == "application/json"
    for asked in ("nobody's", "mine\x00", "\ud800"):
        assert await rows.find(asked) == []


async def test_a_payload_without_bodies_has_none(database: Database) -> None:
    made = capture()
    made.request, made.response, made.response_bytes, made.content_type = None, [], 0, None
    await PayloadRows(database).write([prepare(row("empty"), made, None)])
    (found,) = await PayloadRows(database).find("empty")
    assert (found.request, found.response, found.content_type) == (None, None, None)


async def test_writing_again_changes_nothing(database: Database) -> None:
    written = payload()
    await PayloadRows(database).write([written])
    await PayloadRows(database).write([written, payload("new")])
    assert len(await database.request_payloads.select(database.request_payloads.id)) == 2


async def test_of_requests_with_one_id_the_newest_comes_first(database: Database) -> None:
    older, newer = payload("twice", NOW - timedelta(hours=1)), payload("twice", NOW)
    await PayloadRows(database).write([newer, older])
    assert [found.id for found in await PayloadRows(database).find("twice")] == [newer.id, older.id]


async def test_a_batch_is_written_whole_or_not_at_all(database: Database) -> None:
    bad = payload(request=b"")
    object.__setattr__(bad, "request_truncated", None)
    with pytest.raises(DATABASE_ERRORS):
        await PayloadRows(database).write([payload("good"), bad])
    assert await PayloadRows(database).find("good") == []


async def test_old_payloads_are_purged_in_small_batches(database: Database) -> None:
    rows = PayloadRows(database)
    ages = [timedelta(days=7, seconds=1)] * 230 + [timedelta(days=6, hours=23), timedelta(0)]
    await rows.write([payload(str(age), NOW - age) for age in ages])
    time = FakeTime()
    purge = Purge(rows, "payloads", 7, lambda: NOW, time.sleep)
    assert await purge.run() == 230
    assert len(time.waits) == 3  # 100, 100 and 30 rows
    assert len(await database.request_payloads.select(database.request_payloads.id)) == 2
    assert await purge.run() == 0


async def test_a_purge_gives_disk_back_on_sqlite(database: Database) -> None:
    if database.is_postgres:
        return  # autovacuum does
    rows = PayloadRows(database)
    noise = bytes((number * 7919) % 251 for number in range(100))
    await rows.write([payload(f"{number}", NOW - timedelta(days=9), noise) for number in range(2_000)])
    before = (await database.request_payloads.raw("PRAGMA page_count"))[0]["page_count"]
    assert await Purge(rows, "payloads", 7, lambda: NOW, FakeTime().sleep).run() == 2_000
    assert (await database.request_payloads.raw("PRAGMA page_count"))[0]["page_count"] < before / 2


async def test_a_database_without_the_table_only_puts_the_purge_off(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.request_payloads.raw("ALTER TABLE request_payloads RENAME TO elsewhere")
    await Purge(PayloadRows(database), "payloads", 7).step()
    assert "purge of payloads put off" in caplog.text
