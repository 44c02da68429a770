"""A file of fixed size that records are appended to, through memory.

The file is allocated before anything is promised, so a full disk is noticed when a request is admitted, not when its
outcome must be written. What is copied into the mapping belongs to the kernel at once and survives the process;
`sync` makes it survive the machine.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

from proxy.infrastructure.ledger.framing import framed

Sync = Callable[[int], None]
"""Forces a file, told by its descriptor, to the disk. Raises OSError."""


class Segment:
    """A segment of this process. Raises OSError (ENOSPC) when its space cannot be had."""

    def __init__(self, path: Path, size_bytes: int, sync: Sync = os.fdatasync) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.written_bytes = 0
        self.free_bytes = size_bytes
        self.open_records = 0  # intents and generations in here whose requests have no outcome yet
        self._synced_bytes = 0
        self._sync = sync
        self._has_failed = False  # the last sync
        self._closing = threading.Lock()
        self._is_closed = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(self._descriptor, 0, size_bytes)
            self._memory: mmap.mmap | None = mmap.mmap(self._descriptor, size_bytes)
        except OSError:
            os.close(self._descriptor)
            path.unlink()
            raise

    @property
    def needs_sync(self) -> bool:
        return self._synced_bytes < self.written_bytes

    def append(self, payload: bytes) -> None:
        """Writes a record; the caller has seen to it that there is room."""
        record = framed(payload)
        end = self.written_bytes + len(record)
        if self._memory is None or end > self.size_bytes:
            raise ValueError("the segment is sealed, or has no room")
        self._memory[self.written_bytes : end] = record
        self.written_bytes = end
        self.free_bytes = self.size_bytes - end

    def read(self, start: int, length: int) -> bytes:
        """Up to that many of the bytes written from `start` on."""
        return os.pread(self._descriptor, min(length, self.written_bytes - start), start)

    def sync(self) -> None:
        """Returns when the disk has all that was written before, or need not have it, since the segment is closed.

        Raises OSError when the disk does not take it. Blocks: call it in a thread, in one at a time. The segment may be
        closed meanwhile, so the thread has a descriptor of its own.
        """
        with self._closing:
            if self._is_closed:
                return
            descriptor = os.dup(self._descriptor)
        try:
            self._sync_by(descriptor)
        finally:
            os.close(descriptor)

    def _sync_by(self, descriptor: int) -> None:
        """After a failure the kernel takes what it could not write for written, and says so to who asks again: what the
        disk may not have is written once more."""
        synced, written = self._synced_bytes, self.written_bytes
        if self._has_failed:
            os.pwrite(descriptor, os.pread(descriptor, written - synced, synced), synced)
        self._has_failed = True
        self._sync(descriptor)
        self._has_failed = False
        self._synced_bytes = written

    def seal(self) -> None:
        """No more records; the memory is given back, the file stays readable."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def close(self, *, remove: bool) -> None:
        self.seal()
        with self._closing:
            self._is_closed = True
            os.close(self._descriptor)
        if remove:
            self.path.unlink(missing_ok=True)
