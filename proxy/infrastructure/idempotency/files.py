"""A registry for the workers of one machine: a file for each key, locked while its request runs.

The kernel drops a process's locks when it ends, however it ends, so a key is free again at once. Files are read and
written under their lock, in a thread. They hold answers: only their owner may read them, and they go in time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from proxy.application.idempotency import KEPT_SECONDS
from proxy.infrastructure.idempotency.memory import LIMITS, Limits
from proxy.infrastructure.idempotency.records import (
    HEAD_BYTES,
    Answer,
    Claim,
    Record,
    State,
    packed_answer,
    packed_head,
    unpacked,
)
from proxy.infrastructure.idempotency.registry import RegistryLost
from proxy.infrastructure.periodic import repeating

_PURGE_SECONDS: Final = 60.0
_PURGE_SHARE: Final = 16  # of the bytes that may be held: after so many more
_TURN_SECONDS: Final = 0.001
_MOST_TURNS: Final = 2000


class _Kept(NamedTuple):
    """A file, by age."""

    changed_ns: int
    bytes: int
    path: Path


class FileRegistry:
    """KeyRegistry in a directory. `clock` gives seconds of Unix."""

    mode = "files"
    trouble = "answers cannot be written: idempotency keys are each worker's own"

    def __init__(self, directory: Path, limits: Limits = LIMITS, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._held: dict[bytes, int] = {}  # descriptors, by token
        self._written_bytes = 0
        self._purged = 0.0
        self._purging = threading.Lock()

    async def claim(self, name: str, claim: Claim, awaited: bytes | None) -> Record | None:
        with _told():
            return await asyncio.to_thread(self._claim, self._directory / name, claim, awaited)

    async def finish(self, name: str, claim: Claim, state: State, answer: Answer | None) -> None:
        with _told():
            await asyncio.to_thread(self._finish, self._directory / name, claim, state, answer)

    async def keep(self) -> None:
        if time.monotonic() - self._purged > _PURGE_SECONDS:
            with _told():
                await asyncio.to_thread(self.purge)

    async def probe(self) -> None:
        with _told():
            await asyncio.to_thread(self._try_out)

    async def close(self) -> None:
        """What is held is held until the process ends."""

    # In a thread.

    def _claim(self, path: Path, claim: Claim, awaited: bytes | None) -> Record | None:
        for _ in range(_MOST_TURNS):
            descriptor = self._opened(path)
            try:
                if not _got_lock(descriptor):
                    found = unpacked(os.pread(descriptor, HEAD_BYTES, 0))
                    if found is not None and found.state is State.RUNNING:
                        return found
                elif _is_still(descriptor, path):
                    found = unpacked(_whole(descriptor))
                    if found is not None and self._answers(found, awaited):
                        return found
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, packed_head(Record(State.RUNNING, claim)), 0)
                    self._held[claim.token], descriptor = descriptor, -1
                    return None
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            time.sleep(_TURN_SECONDS)  # somebody reads it just now, or is about to write
        raise RegistryLost("the key's file is always in use", is_taken=True)

    def _opened(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _answers(self, found: Record, awaited: bytes | None) -> bool:
        if found.state is State.FAILED:
            return found.claim.token == awaited
        return found.state is State.DONE and found.expires > self._clock()

    def _finish(self, path: Path, claim: Claim, state: State, answer: Answer | None) -> None:
        descriptor = self._held.pop(claim.token, None)
        if descriptor is None:
            return
        try:
            if state is State.RUNNING:
                path.unlink(missing_ok=True)
                return
            is_kept = answer is not None and len(answer.body) <= self._limits.answer_bytes
            data = packed_answer(answer if is_kept else None)
            try:
                os.pwrite(descriptor, data, HEAD_BYTES)
            except OSError:  # nothing is carried out twice for want of room
                os.ftruncate(descriptor, HEAD_BYTES)
                data = b""
            record = Record(state, claim, expires=self._clock() + KEPT_SECONDS)
            os.pwrite(descriptor, packed_head(record), 0)  # last: whoever is killed before it has not answered
        finally:
            os.close(descriptor)
        self._written_bytes += len(data)
        if self._written_bytes > self._limits.total_bytes // _PURGE_SHARE:
            self.purge()

    def purge(self) -> None:
        """Forgets what is old; beyond the limits the oldest answers go, and then the oldest keys."""
        if not self._purging.acquire(blocking=False):
            return
        try:
            self._written_bytes, self._purged = 0, time.monotonic()
            files = sorted(self._kept())
            oldest_ns = (self._clock() - KEPT_SECONDS) * 1e9
            too_many = len(files) - self._limits.answers
            too_large = sum(each.bytes for each in files) - self._limits.total_bytes
            for number, each in enumerate(files):
                if each.changed_ns < oldest_ns or number < too_many:
                    _forget(each.path)
                    too_large -= each.bytes
                elif too_large > 0:
                    _forget_answer(each)
                    too_large -= each.bytes
        finally:
            self._purging.release()

    def _kept(self) -> Iterator[_Kept]:
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    facts = entry.stat(follow_symlinks=False)
                    yield _Kept(facts.st_mtime_ns, facts.st_size, Path(entry.path))

    def _try_out(self) -> None:
        path = self._directory / f".probe-{os.getpid()}"
        os.close(self._opened(path))
        path.write_bytes(b"x" * HEAD_BYTES)
        path.unlink()


@asynccontextmanager
async def forgetting(directory: Path) -> AsyncIterator[None]:
    """Where keys are kept elsewhere: what an earlier start has left in files goes when its time is over."""
    registry = FileRegistry(directory)

    async def forget() -> None:
        with suppress(OSError):
            await asyncio.to_thread(registry.purge)

    async with repeating(forget, lambda: _PURGE_SECONDS, "idempotency files"):
        yield


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise RegistryLost(type(problem).__name__) from problem


def _got_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file has not been removed between being opened and being locked."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _whole(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@contextmanager
def _alone_with(path: Path) -> Iterator[int | None]:
    """The file's descriptor, locked; None if its request runs, or if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor if _got_lock(descriptor) and _is_still(descriptor, path) else None
    finally:
        os.close(descriptor)


def _forget(path: Path) -> None:
    with _alone_with(path) as descriptor:
        if descriptor is not None:
            path.unlink()


def _forget_answer(kept: _Kept) -> None:
    with _alone_with(kept.path) as descriptor:
        if descriptor is not None and kept.bytes > HEAD_BYTES:
            os.ftruncate(descriptor, HEAD_BYTES)
            os.utime(descriptor, ns=(kept.changed_ns, kept.changed_ns))  # the key's time is what it was
