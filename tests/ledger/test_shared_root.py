"""Several processes in one spool root, each of which comes and goes as it likes."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.infrastructure.ledger.adoption import adopt_dead_spools
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import outcome_payload
from proxy.infrastructure.ledger.spool import Spool
from proxy.infrastructure.persistence.rows import ledger_row
from tests.ledger.conftest import Writer, row

MEBIBYTE = 1024 * 1024


def dead_spool(root: Path, name: str) -> Path:
    spool = Spool(root, max_bytes=64 * MEBIBYTE)
    spool.reserve()
    one = row(name)
    spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    spool._lock.close()
    return spool.directory


@contextmanager
def removals() -> Iterator[list[str]]:
    """The names of the files that are removed meanwhile, in order."""
    removed: list[str] = []
    is_open = True

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if is_open and event == "os.remove":
            removed.append(Path(arguments[0]).name)

    sys.addaudithook(note)  # for the life of the process, so it is closed
    try:
        yield removed
    finally:
        is_open = False


async def test_a_spool_that_is_being_made_is_not_taken_for_a_dead_one(writer: Writer, tmp_path: Path) -> None:
    """Its lock file is there a moment before it is locked."""
    hidden = tmp_path / ".1-1-new"
    hidden.mkdir()
    (hidden / "lock").touch()
    quarantine = Quarantine(tmp_path)
    await adopt_dead_spools(tmp_path, tmp_path / "own", Drain(writer, quarantine), quarantine)
    assert hidden.exists()


async def test_a_spool_is_removed_from_its_oldest_segment_on_and_its_lock_last(writer: Writer, tmp_path: Path) -> None:
    """Whose adopter is killed meanwhile must not lose its lock: it would count against the limit for ever."""
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE, segment_bytes=32 * 1024)
    for number in range(900):
        one = row(f"{number}")
        spool.reserve()
        spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
    spool._lock.close()
    segments = sorted(path.name for path in spool.directory.glob("*.segment"))
    assert len(segments) > 3
    quarantine = Quarantine(tmp_path)
    with removals() as removed:
        await adopt_dead_spools(tmp_path, tmp_path / "own", Drain(writer, quarantine), quarantine)
    assert removed[: len(segments)] == segments
    assert removed[-1] == "lock"


async def test_a_spool_that_cannot_be_opened_does_not_keep_others_from_being_adopted(
    writer: Writer, tmp_path: Path
) -> None:
    strange = tmp_path / "0-strange"
    (strange / "lock").mkdir(parents=True)
    dead_spool(tmp_path, "booked")
    quarantine = Quarantine(tmp_path)
    await adopt_dead_spools(tmp_path, tmp_path / "own", Drain(writer, quarantine), quarantine)
    assert writer.names() == ["booked"]


def test_a_spool_grows_while_other_processes_spools_are_removed(tmp_path: Path) -> None:
    ending = threading.Event()

    def come_and_go() -> None:
        while not ending.is_set():
            other = tmp_path / "other"
            other.mkdir()
            (other / "00000001.segment").touch()
            shutil.rmtree(other)

    spool = Spool(tmp_path, max_bytes=4000 * MEBIBYTE, segment_bytes=64 * 1024)
    others = threading.Thread(target=come_and_go)
    others.start()
    try:
        for _ in range(10_000):
            spool.reserve()
    finally:
        ending.set()
        others.join()
        spool.close()
