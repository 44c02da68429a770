"""What a spool tells whoever adopts it, beyond its outcomes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.infrastructure.ledger.adoption import adopt_dead_spools
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import generation_payload, intent_payload, outcome_payload
from proxy.infrastructure.ledger.spool import Spool
from proxy.infrastructure.persistence.rows import ledger_row
from tests.ledger.conftest import Writer, intent_of, row

MEBIBYTE = 1024 * 1024


async def test_what_the_spool_knows_to_be_booked_is_not_booked_into_sealed_hours_again(
    writer: Writer, tmp_path: Path
) -> None:
    """Retention may have dropped its rows, and the sums that stay have them already."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    names = ["booked", "booked too", "not booked"]
    for name in names:
        spool.reserve()
        one = row(name)
        spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    *_, reading = spool.read_on(2)
    quarantine = Quarantine(tmp_path)
    assert await Drain(writer, quarantine).book_payloads(reading.outcomes)
    spool.booked(reading)
    spool._lock.close()  # the process dies
    assert writer.names() == names[:2]
    writer.booked.clear()
    writer.keeps_sealed_hours = False
    await adopt_dead_spools(tmp_path, tmp_path / "another", Drain(writer, quarantine), quarantine)
    assert writer.names() == names[2:]


async def test_an_interrupted_request_keeps_the_id_of_what_was_generated_for_it(writer: Writer, tmp_path: Path) -> None:
    """Also when its records lie in different segments, of which the earlier ones are booked."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE, segment_bytes=32 * 1024)
    drain = Drain(writer, Quarantine(tmp_path))
    cut = row("cut")
    spool.reserve()
    spool.note_intent(cut.id, intent_payload(intent_of(cut)))
    for generation in ("gen-1", "gen-2"):
        for number in range(200):
            one = row(f"{generation}-{number}")
            spool.reserve()
            spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
        spool.note_generation(cut.id, generation_payload(cut.id, generation))
    while spool.waiting_rows():
        *_, reading = spool.read_on(50)
        assert await drain.book_payloads(reading.outcomes)
        spool.booked(reading)
    spool._lock.close()
    await adopt_dead_spools(tmp_path, tmp_path / "another", drain, Quarantine(tmp_path))
    (booked,) = (one for one in writer.booked.values() if one.request_id == "cut")
    assert (booked.status, booked.generation_id) == ("interrupted", "gen-2")


async def test_only_what_adopting_has_booked_is_counted(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One row is known to be booked, one was booked when its process died, one is disliked, and one is new."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    rows = [row(name) for name in ("known", "unknown", "disliked", "new")]
    for one in rows:
        spool.reserve()
        spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    *_, reading = spool.read_on(1)
    quarantine = Quarantine(tmp_path)
    owner, heir = Drain(writer, quarantine), Drain(writer, quarantine)
    assert await owner.book_payloads(reading.outcomes)
    spool.booked(reading)
    await writer.write([ledger_row(rows[1])])
    spool._lock.close()
    writer.disliked = "disliked"
    assert await adopt_dead_spools(tmp_path, tmp_path / "another", heir, quarantine) == 1
    assert writer.names() == ["known", "unknown", "new"]
    assert (owner.booked_rows, heir.booked_rows) == (1, 1)
    (told,) = (each for each in caplog.records if each.msg.startswith("adopted"))
    assert told.__dict__["rows"] == 1


async def test_own_rows_count_also_when_the_answer_to_the_write_was_lost(writer: Writer, tmp_path: Path) -> None:
    one = ledger_row(row())
    await writer.write([one])
    drain = Drain(writer, Quarantine(tmp_path))
    assert await drain.book_payloads([outcome_payload(one)])
    assert drain.booked_rows == 1


async def test_what_cannot_be_read_is_set_aside_once_however_often_the_database_is_away(
    writer: Writer, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    one, torn = row("one"), row("torn")
    for each in (one, torn):
        spool.reserve()
        spool.note_outcome(each.id, outcome_payload(ledger_row(each)))
    spool._append(b"Z a record of a later version")
    spool._append(b"O and an outcome that is none")
    spool._lock.close()  # the process dies
    (segment,) = spool.directory.glob("*.segment")
    text = bytearray(segment.read_bytes())
    place = text.index(b"torn")
    text[place] ^= 1
    segment.write_bytes(text)
    quarantine, kept = Quarantine(tmp_path), tmp_path / "quarantine.jsonl"
    for writer.is_away in (True, True, False, False):
        assert kept.exists() is bool(writer.booked)
        await adopt_dead_spools(tmp_path, tmp_path / "another", Drain(writer, quarantine), quarantine)
    assert writer.names() == ["one"]
    entries = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [bytes.fromhex(entry["payload_hex"])[:2] for entry in entries[:2]] == [b"Z ", b"O "]
    (damage,) = entries[2:]
    assert bytes.fromhex(damage["bytes_hex"]) == bytes(text[damage["start"] : damage["end"]])
    assert damage["start"] < place < damage["end"]
    assert quarantine.set_aside_rows == 3


async def test_a_process_sets_an_unreadable_outcome_of_its_own_aside_once(writer: Writer, tmp_path: Path) -> None:
    drain = Drain(writer, quarantine := Quarantine(tmp_path))
    one = row("one")
    payloads = [b"O and an outcome that is none", outcome_payload(ledger_row(one))]
    for writer.is_away in (True, True, False):
        await drain.book_payloads(payloads)
    assert (writer.names(), quarantine.set_aside_rows) == (["one"], 1)


async def test_a_spool_that_waits_for_the_database_does_not_end_the_outage(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is looked at again and again, and holds nothing of some kinds of rows: of those none is refused."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE)
    spool.reserve()
    one = row()
    spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    spool._lock.close()
    quarantine = Quarantine(tmp_path)
    drain = Drain(writer, quarantine)
    errors = []
    caplog.set_level("INFO", "proxy.infrastructure.ledger.drain")
    for writer.is_away in (True, True, False):
        await adopt_dead_spools(tmp_path, tmp_path / "another", drain, quarantine)
        errors.append(drain.last_error)
    assert errors == ["ConnectionRefusedError", "ConnectionRefusedError", None]
    told = [record.getMessage() for record in caplog.records if record.name.endswith(".drain")]
    assert told == ["ledger cannot reach its database, rows wait", "ledger reaches its database again"]


async def test_an_outage_ends_when_leases_are_released(writer: Writer, tmp_path: Path) -> None:
    """There may be no row to book for long."""
    drain = Drain(writer, Quarantine(tmp_path))
    writer.is_away = True
    assert not await drain.release("process")
    assert drain.last_error is not None
    writer.is_away = False
    assert await drain.release("process")
    assert drain.last_error is None
