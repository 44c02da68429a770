"""A process's spool: a directory of segments that it alone writes, and reads back to fill the database.

Room is reserved for a whole request when it is admitted, so that nothing can keep its outcome from being written. A
segment is removed when all its outcomes are in the database and all its intents have outcomes.

The directory is locked (flock) for as long as the process lives. Who finds a spool that is not locked may adopt it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from uuid import UUID, uuid4

from proxy.infrastructure.ledger.framing import HEADER_BYTES, payload_at
from proxy.infrastructure.ledger.progress import Progress
from proxy.infrastructure.ledger.records import is_outcome
from proxy.infrastructure.ledger.segment import Segment, Sync

LOCK_FILE = "lock"
SEGMENT_SUFFIX = ".segment"
# An intent, an outcome and some generations of the longest texts that they take, four bytes to a character, and their
# charges to as many budgets as may apply.
REQUEST_BYTES = 16 * 1024
MOST_GENERATIONS = 4  # noted of one request; its outcome has the last one anyway
_READ_BYTES = 64 * 1024  # some 170 requests, half a millisecond
_MARK_SECONDS = 1.0


class SpoolFull(Exception):
    """No room can be had for another request; the message says why."""


class SpoolDamaged(Exception):
    """What this process wrote is not what it reads."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Outcomes read on from the spool, and where to go on when they are booked."""

    outcomes: list[bytes]
    segment: Segment | None
    place: int


class Spool:
    """Belongs to one event loop. `max_bytes` bounds what lies in `root`, other processes' spools included."""

    def __init__(
        self, root: Path, *, max_bytes: int, segment_bytes: int = 4 * 1024 * 1024, sync: Sync = os.fdatasync
    ) -> None:
        self._root = root
        self._sync = sync
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._usable_bytes = max(0, segment_bytes - REQUEST_BYTES)  # its end may be too short for the next record
        self.directory, self._lock = _new_directory(root)
        self._segments: deque[Segment] = deque()  # oldest first; those after `_current` are spare
        self._current: Segment | None = None
        self._next_number = 1
        self._reserved = 0
        self._spare_bytes = 0  # that records can use in the segments after `_current`
        self._open: dict[int, list[Segment]] = {}  # of requests without an outcome: where their records are
        self._progress = Progress(self.directory)
        self._reading: Segment | None = None
        self._place = 0
        self._appended = self._booked = 0
        self._marks: deque[tuple[int, float]] = deque()

    # Writing.

    def reserve(self) -> None:
        """Makes sure of room for one more request. Raises SpoolFull."""
        while self._room() < (self._reserved + 1) * REQUEST_BYTES:
            self._allocate()
        self._reserved += 1

    def unreserve(self) -> None:
        """Gives back what `reserve` has promised."""
        self._reserved -= 1

    def note_intent(self, request: UUID, payload: bytes) -> None:
        segment = self._append(payload)
        segment.open_records += 1
        self._open[request.int] = [segment]  # the hash of an UUID is a call of its own

    def note_generation(self, request: UUID, payload: bytes) -> None:
        """Nothing without an intent, and not for ever: the room for it is reserved."""
        places = self._open.get(request.int)
        if places is not None and len(places) <= MOST_GENERATIONS:
            segment = self._append(payload)
            segment.open_records += 1
            places.append(segment)

    def note_outcome(self, request: UUID, payload: bytes) -> None:
        """Ends the request's reservation."""
        self._append(payload)
        self._reserved -= 1
        self._appended += 1
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][1] >= _MARK_SECONDS:
            self._marks.append((self._appended, now))
        for segment in self._open.pop(request.int, ()):
            segment.open_records -= 1

    def _append(self, payload: bytes) -> Segment:
        segment = self._current
        if segment is None or segment.free_bytes < len(payload) + HEADER_BYTES:
            segment = self._advance()
        segment.append(payload)
        return segment

    def _advance(self) -> Segment:
        """On to the next segment; it is there, because room was reserved."""
        if self._current is None:
            following = 0
        else:
            self._current.seal()
            following = self._segments.index(self._current) + 1
        if following == len(self._segments):
            self._allocate()
        self._current = self._segments[following]
        self._spare_bytes -= self._usable_bytes
        return self._current

    def _room(self) -> int:
        """Bytes that records can certainly use."""
        room = self._spare_bytes
        if self._current is not None and (rest := self._current.free_bytes - REQUEST_BYTES) > 0:
            room += rest
        return room

    def _allocate(self) -> None:
        if self.used_bytes() + _bytes_of_others(self._root, self.directory) + self._segment_bytes > self._max_bytes:
            raise SpoolFull("the spool has reached its limit (LEDGER_SPOOL_MAX_BYTES)")
        path = self.directory / f"{self._next_number:08}{SEGMENT_SUFFIX}"
        try:
            self._segments.append(Segment(path, self._segment_bytes, self._sync))
        except OSError as problem:
            raise SpoolFull(f"the spool cannot grow: {problem.strerror}") from problem
        self._spare_bytes += self._usable_bytes
        self._next_number += 1

    # Reading.

    def read_on(self, limit: int) -> Iterator[Reading]:
        """Up to `limit` outcomes that are not booked yet; the same again until `booked` is called.

        After each read there is what has been read so far, nothing at first, so that others have a turn.
        """
        segment, place = self._reading or (self._segments[0] if self._segments else None), self._place
        outcomes: list[bytes] = []
        yield Reading(outcomes, segment, place)
        while segment is not None and len(outcomes) < limit:
            place = self._collect(segment, place, outcomes, limit)
            yield Reading(outcomes, segment, place)
            if place == segment.written_bytes:
                if segment is self._current:
                    return
                segment, place = self._segments[self._segments.index(segment) + 1], 0

    def _collect(self, segment: Segment, place: int, outcomes: list[bytes], limit: int) -> int:
        text, start = segment.read(place, _READ_BYTES), place
        while len(outcomes) < limit and (payload := payload_at(text, place - start)) is not None:
            place += HEADER_BYTES + len(payload)
            if is_outcome(payload):
                outcomes.append(payload)
        if place == start < segment.written_bytes:
            raise SpoolDamaged(f"{segment.path} at byte {place}")  # a whole record fits into what was read
        return place

    def booked(self, reading: Reading) -> None:
        """The reading's outcomes are in the database."""
        self._reading, self._place = reading.segment, reading.place
        if reading.segment is not None:
            self._progress.note(reading.segment.path, reading.place)
        self._booked += len(reading.outcomes)
        while self._marks and self._marks[0][0] <= self._booked:
            self._marks.popleft()
        self._remove_finished()

    def _remove_finished(self) -> None:
        for segment in list(self._segments):
            if segment is self._reading or segment is self._current:
                return
            if segment.open_records == 0:
                self._segments.remove(segment)
                segment.close(remove=True)

    # What it holds.

    def waiting_rows(self) -> int:
        """Outcomes that are not booked yet."""
        return self._appended - self._booked

    def oldest_waiting_seconds(self) -> float:
        """How long the oldest of them has waited, to a second."""
        return time.monotonic() - self._marks[0][1] if self._marks and self.waiting_rows() else 0.0

    def used_bytes(self) -> int:
        return len(self._segments) * self._segment_bytes

    def unsynced(self) -> list[Segment]:
        """Segments with records that the disk may not have."""
        return [segment for segment in self._segments if segment.needs_sync]

    def close(self) -> None:
        """Gives the spool up. If everything is booked it goes; else it stays for whoever adopts it."""
        finished = not self.waiting_rows() and not self._open
        self._progress.close()
        for segment in self._segments:
            segment.close(remove=finished)
        if finished:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()


def _new_directory(root: Path) -> tuple[Path, TextIO]:
    """A directory that is locked before it has its final name, so that nobody takes it for a dead one."""
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the data directory
    root.mkdir(exist_ok=True)
    name = f"{time.time_ns()}-{os.getpid()}-{uuid4().hex[:8]}"
    hidden = root / f".{name}"
    hidden.mkdir(mode=0o700)
    lock = (hidden / LOCK_FILE).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return hidden.rename(root / name), lock


def _bytes_of_others(root: Path, own: Path) -> int:
    """What the spools of other processes, dead or alive, take up. They may go while we look."""
    total = 0
    for directory in root.iterdir():
        if directory == own:
            continue
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as files:
            total += sum(file.stat().st_size for file in files if file.name.endswith(SEGMENT_SUFFIX))
    return total
