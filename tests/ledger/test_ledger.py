"""The ledger over its spool: nothing lost while the database is away, nothing promised that cannot be kept."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from proxy.domain.budgets import Charge
from proxy.domain.errors import LedgerFull
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.infrastructure.ledger.adoption import adopt_dead_spools
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.ledger import Fsync, SpoolLedger, spool_ledger
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import intent_payload, outcome_payload
from proxy.infrastructure.ledger.spool import Spool, SpoolFull
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from proxy.infrastructure.persistence.rows import ledger_row
from tests.ledger.conftest import Writer, intent_of, row
from tests.persistence.conftest import database

__all__ = ["database"]
MEBIBYTE = 1024 * 1024


def book(ledger: SpoolLedger, *rows: RequestLog, begun: bool = True) -> None:
    for one in rows:
        ledger.admit()
        if begun:
            ledger.begin(intent_of(one))
        ledger.settle(one)


async def until_booked(ledger: SpoolLedger, count: int) -> None:
    async with asyncio.timeout(10):
        while ledger.state()["booked_rows"] < count:
            await asyncio.sleep(0.01)


def spools(root: Path) -> list[Path]:
    return [path.parent for path in root.glob("*/lock")]


async def test_rows_reach_the_database_by_themselves(database: Database, tmp_path: Path) -> None:
    rows = [row(str(number)) for number in range(2000)]
    async with row_writer(database) as writer, spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, *rows)
        await until_booked(ledger, 2000)
        assert ledger.state()["waiting_rows"] == 0
    assert {one.id for one in await PiccoloRequestLogs(database).get_recent(9000)} == {one.id for one in rows}


async def test_stopping_books_what_waits_and_leaves_no_spool(database: Database, tmp_path: Path) -> None:
    async with row_writer(database) as writer, spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, *(row() for _ in range(777)))
    assert len(await PiccoloRequestLogs(database).get_recent(1000)) == 777
    assert spools(tmp_path) == []


async def test_stopping_at_any_moment_of_a_write_loses_nothing(database: Database, tmp_path: Path) -> None:
    async with row_writer(database) as writer:
        for turns in range(30):
            async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
                book(ledger, row())
                for _ in range(turns):
                    await asyncio.sleep(0)
    assert len(await PiccoloRequestLogs(database).get_recent(1000)) == 30


async def test_rows_wait_in_the_spool_while_the_database_is_away(writer: Writer, tmp_path: Path) -> None:
    writer.is_away = True
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, *(row(str(number)) for number in range(20_000)))
        async with asyncio.timeout(5):
            while ledger.can_book():
                await asyncio.sleep(0.01)
        state = ledger.state()
        assert (state["waiting_rows"], state["last_error"]) == (20_000, "ConnectionRefusedError")
        assert ledger.refusal() is None
        writer.is_away = False
        await until_booked(ledger, 20_000)
        assert ledger.can_book()
        assert ledger.state()["spool_bytes"] <= 8 * MEBIBYTE
    assert writer.names() == [str(number) for number in range(20_000)]


def _full() -> sqlite3.OperationalError:
    """As a SQLite file raises it that the disk has no room for."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as raised:
            connection.execute("CREATE TABLE one (two)")
    return raised.value


async def test_the_log_tells_of_an_outage_its_reason_and_its_end(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite has one class for files that are full, locked and read-only: it is the error's name that tells."""
    writer.is_away, writer.trouble = True, _full()
    caplog.set_level("INFO", "proxy.infrastructure.ledger")
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, row())
        async with asyncio.timeout(5):
            while ledger.can_book():
                await asyncio.sleep(0.01)
        assert ledger.state()["last_error"] == "OperationalError (SQLITE_FULL)"
        writer.is_away = False
        await until_booked(ledger, 1)
    told = [(record.getMessage(), vars(record).get("reason")) for record in caplog.records]
    assert told == [
        ("ledger cannot reach its database, rows wait", "OperationalError (SQLITE_FULL)"),
        ("ledger reaches its database again", None),
    ]


async def test_an_outage_that_only_a_dead_spool_has_told_of_ends_also_when_another_process_adopts_it(
    writer: Writer, tmp_path: Path
) -> None:
    """There may be no row of its own for long, and nothing else asks the database."""
    dead = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    dead.reserve()
    left = row("left")
    dead.note_outcome(left.id, outcome_payload(ledger_row(left)))
    dead._lock.close()  # the process dies
    spool, quarantine, sibling = Spool(tmp_path, max_bytes=64 * MEBIBYTE), Quarantine(tmp_path), Writer()
    ledger = SpoolLedger(spool, Drain(writer, quarantine), quarantine, Fsync.NEVER)
    writer.is_away = True
    await ledger.adopt()
    assert ledger.state()["last_error"] == "ConnectionRefusedError"
    assert await adopt_dead_spools(tmp_path, spool.directory, Drain(sibling, quarantine), quarantine) == 1
    assert sibling.names() == ["left"]
    await ledger.adopt()
    assert not ledger.can_book()
    writer.is_away = False
    await ledger.adopt()
    assert ledger.can_book()
    spool.close()


async def test_a_backlog_is_booked_in_few_transactions(writer: Writer, tmp_path: Path) -> None:
    """Each costs as much as some 50 rows."""
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, *(row(str(number)) for number in range(20_000)))
        await until_booked(ledger, 20_000)
    assert writer.writes == 20


def test_a_backlog_is_read_in_pieces(tmp_path: Path) -> None:
    """Others have a turn after each. To read a thousand records at once takes some milliseconds."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    for number in range(1000):
        one = row(str(number))
        spool.reserve()
        spool.note_intent(one.id, intent_payload(intent_of(one)))
        spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    counts = [len(reading.outcomes) for reading in spool.read_on(900)]
    spool.close()
    assert (counts[0], counts[-1]) == (0, 900)
    assert max(after - before for before, after in pairwise(counts)) < 500


async def test_what_is_left_at_the_end_is_adopted_by_the_next(writer: Writer, tmp_path: Path) -> None:
    writer.is_away = True
    unfinished = row("unfinished")
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, flush_timeout_seconds=0.05) as ledger:
        book(ledger, row("a"), row("b"))
        ledger.admit()
        ledger.begin(intent_of(unfinished))
    assert len(spools(tmp_path)) == 1
    writer.is_away = False
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        await until_booked(ledger, 3)
    assert writer.names() == ["a", "b", "unfinished"]
    last = writer.booked[str(unfinished.id)]
    assert (last.status, last.reported_cost_usd, last.cost_source) == (RequestStatus.INTERRUPTED, None, "unknown")
    assert spools(tmp_path) == []


async def test_a_living_spool_is_not_adopted(writer: Writer, tmp_path: Path) -> None:
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as first:
        first.admit()
        first.begin(intent_of(row("under way")))
        async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as second:
            await second.adopt()
            assert writer.names() == []
            assert len(spools(tmp_path)) == 2


async def test_replaying_what_is_booked_changes_nothing(database: Database, tmp_path: Path) -> None:
    """The process died after the database had the rows and before the spool knew."""
    rows = [row(str(number)) for number in range(10)]
    async with row_writer(database) as writer:
        for _ in range(2):
            async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
                book(ledger, *rows)
    assert len(await PiccoloRequestLogs(database).get_recent(1000)) == 10


async def test_damage_is_reported_and_the_rest_recovered(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer.is_away = True
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, flush_timeout_seconds=0.05) as ledger:
        book(ledger, row("first"), row("second"), row("third"), begun=False)
    (segment,) = tmp_path.glob("*/*.segment")
    text = bytearray(segment.read_bytes())
    text[text.index(b"second")] ^= 4
    segment.write_bytes(bytes(text))
    writer.is_away = False
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        await until_booked(ledger, 2)
        async with asyncio.timeout(10):
            while ledger.state()["set_aside_rows"] != 1:  # after the rows
                await asyncio.sleep(0.01)
    assert writer.names() == ["first", "third"]
    (entry,) = map(json.loads, (tmp_path / "quarantine.jsonl").read_text().splitlines())
    assert entry["reason"] == "damaged spool"
    assert b"third" not in bytes.fromhex(entry["bytes_hex"])
    assert any("quarantine" in record.message for record in caplog.records)


async def test_a_row_that_is_refused_is_set_aside_readable(writer: Writer, tmp_path: Path) -> None:
    writer.disliked = "bad"
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, row("a"), row("bad"), row("b"))
        await until_booked(ledger, 2)
        assert ledger.state()["set_aside_rows"] == 1
        assert ledger.state()["waiting_rows"] == 0
    assert writer.names() == ["a", "b"]
    (entry,) = map(json.loads, (tmp_path / "quarantine.jsonl").read_text().splitlines())
    assert entry["row"]["request_id"] == "bad"
    assert entry["reason"] == "DataError"


async def test_a_full_spool_refuses_before_it_promises(writer: Writer, tmp_path: Path) -> None:
    """And every request that was admitted can still be settled, with the longest texts that a row holds."""
    writer.is_away = True
    long = "€" * 300
    charges = [Charge(uuid4(), "x" * 64, datetime.now(UTC), 2**62) for _ in range(16)]
    async with spool_ledger(tmp_path, writer, max_bytes=8 * MEBIBYTE, flush_timeout_seconds=0.05) as ledger:
        admitted = 0
        while ledger.refusal() is None:
            with suppress(LedgerFull):
                ledger.admit()
                admitted += 1
        with pytest.raises(LedgerFull, match="LEDGER_SPOOL_MAX_BYTES") as refused:
            ledger.admit()
        assert refused.value.retry_after_seconds > 0
        assert admitted > 500
        for _ in range(admitted):
            one = replace(row(long), requested_model=long, end_user=long, charges=charges)
            ledger.begin(intent_of(one)._replace(requested_model=long, model=long, end_user=long, holds=charges))
            for _ in range(10):
                ledger.generating(one.id, long)
            ledger.settle(one)
        assert ledger.state()["waiting_rows"] == admitted
        writer.is_away = False
        await until_booked(ledger, admitted)
        ledger.admit()
        assert ledger.refusal() is None


async def test_a_disk_without_room_refuses_and_recovers(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on the size of files stands in for a full disk: the kernel refuses to allocate."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEBIBYTE, hard))
        try:
            with pytest.raises(LedgerFull, match="cannot grow"):
                ledger.admit()
            assert "cannot grow" in (ledger.refusal() or "")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ledger.refusal() is None
        book(ledger, row("after"))
        await until_booked(ledger, 1)
    assert [record.message for record in caplog.records].count("ledger refuses requests") == 1


@pytest.mark.parametrize("fsync", list(Fsync))
async def test_every_fsync_policy_books(writer: Writer, tmp_path: Path, fsync: Fsync) -> None:
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, fsync=fsync) as ledger:

        async def request(number: int) -> None:
            book(ledger, row(str(number)))
            await ledger.durable()

        await asyncio.gather(*(request(number) for number in range(50)))
    assert len(writer.booked) == 50


async def test_always_means_that_the_disk_has_it(writer: Writer, tmp_path: Path) -> None:
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, fsync=Fsync.ALWAYS) as ledger:
        book(ledger, row())
        assert ledger._spool.unsynced()
        await ledger.durable()
        assert not ledger._spool.unsynced()


def test_a_spool_counts_what_others_use(tmp_path: Path) -> None:
    first, second, third = (Spool(tmp_path, max_bytes=8 * MEBIBYTE) for _ in range(3))
    first.reserve()
    second.reserve()
    with pytest.raises(SpoolFull, match="limit"):
        third.reserve()
    for spool in (first, second, third):
        spool.close()


async def test_the_spool_is_for_its_owner_s_eyes(writer: Writer, tmp_path: Path) -> None:
    async with spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE) as ledger:
        book(ledger, row())
        (segment,) = tmp_path.glob("*/*.segment")
        assert os.stat(segment).st_mode & 0o077 == 0  # noqa: PTH116
