"""Answers of requests with an Idempotency-Key, in this process's memory."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from proxy.application.idempotency import KEPT_SECONDS, AnswerHead, IdempotencyKey
from proxy.domain.errors import IdempotencyKeyReused, IdempotentAnswerNotKept, StreamBroken
from proxy.infrastructure.idempotency.records import Answer
from proxy.infrastructure.periodic import repeating

_logger = logging.getLogger(__name__)
_READ_AHEAD_BYTES = 64 * 1024
_MOST_BEHIND_BYTES = 256 * 1024
_READ_BYTES = 256 * 1024
_PURGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be held at once: finished answers by number, all by bytes, and each by bytes."""

    answers: int = 10_000
    total_bytes: int = 64 * 1024 * 1024
    answer_bytes: int = 8 * 1024 * 1024


LIMITS = Limits()


def _nothing(_recording: MemoryRecording, _keep: bool) -> None:  # as recordings call it
    pass


def _not_counted(_recording: MemoryRecording, _by_bytes: int) -> None:
    pass


class MemoryRecording:
    """Bytes that are written once and read by many.

    It is written no faster than its fastest reader reads, but for a little. Once it is `too_large`, only what readers
    still need is held; those that are far behind lose their place, so that a dead connection does not hold up others.
    """

    def __init__(
        self,
        fingerprint: bytes,
        resized: Callable[[MemoryRecording, int], None],
        ended: Callable[[MemoryRecording, bool], None],
    ) -> None:
        self.fingerprint = fingerprint
        self.too_large = False
        self.is_complete = False
        self.has_ended = False
        self._resized = resized
        self._ended = ended
        self._head: AnswerHead | None = None
        self._data = bytearray()
        self._dropped = 0  # bytes that were before those in `_data`
        self._completing_from: int | None = None
        self._error: Exception | None = None
        self._readers: set[MemoryReader] = set()
        self._news = asyncio.Event()
        self._progress = asyncio.Event()

    @classmethod
    def of(cls, answer: Answer) -> MemoryRecording:
        """A recording that has ended: of an answer that another process got."""
        recording = cls(b"", _not_counted, _nothing)
        recording._head = answer.head
        recording._data += answer.body
        recording._completing_from = max(0, len(answer.body) - 1)
        recording.is_complete = recording.has_ended = True
        return recording

    # For the store.

    @property
    def answer(self) -> Answer | None:
        """All of it, if it is complete and all of it is here."""
        if self._head is None or self.too_large or not self.is_complete:
            return None
        return Answer(self._head, bytes(self._data))

    @property
    def held_bytes(self) -> int:
        return len(self._data)

    def stop_keeping(self) -> None:
        """From now on it holds as little as it can."""
        self.too_large = True
        self._trim()

    # For whoever writes.

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    def reader(self) -> MemoryReader:
        reader = MemoryReader(self)
        self._readers.add(reader)
        return reader

    def begin(self, head: AnswerHead) -> None:
        self._head = head
        self._tell()

    async def write(self, data: bytes, *, completes: bool = False) -> None:
        if completes:
            self.is_complete = True
            self._completing_from = self._written
        self._data += data
        self._resized(self, len(data))
        self._tell()
        while not self.is_complete and self._written - self._read > _READ_AHEAD_BYTES:
            self._progress.clear()
            await self._progress.wait()

    def end(self, *, keep: bool, error: Exception | None = None) -> None:
        if not self.has_ended:
            self.has_ended = True
            self._error = error
            self._ended(self, keep)
            self._resized = _not_counted  # what readers still hold is no more the store's
            self._tell()

    # For readers.

    async def head(self) -> AnswerHead:
        while self._head is None:
            await self._wait()
        return self._head

    async def after(self, position: int) -> tuple[bytes, bool]:
        """Bytes from that position on, and whether the answer is complete with them."""
        while position >= self._written:
            if self.has_ended and self._error is None:
                return b"", self.is_complete
            await self._wait()
        start = position - self._dropped
        if start < 0:
            raise StreamBroken("The answer was read too slowly to be shared.", kind="stream_lagging")
        data = bytes(self._data[start : start + _READ_BYTES])
        complete_from = self._completing_from
        return data, complete_from is not None and position + len(data) > complete_from

    def has_read(self) -> None:
        self._progress.set()
        self._trim()

    def forget(self, reader: MemoryReader) -> None:
        self._readers.discard(reader)

    async def _wait(self) -> None:
        if self.has_ended:
            raise self._error or RuntimeError("the request with the same idempotency key was cancelled")
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @property
    def _written(self) -> int:
        return self._dropped + len(self._data)

    @property
    def _read(self) -> int:
        """How far the fastest reader is."""
        return max((reader.position for reader in self._readers), default=self._dropped)

    def _trim(self) -> None:
        if not self.too_large or self.is_complete:  # what is complete grows no more
            return
        slowest = min((reader.position for reader in self._readers), default=self._written)
        useless = min(self._read, max(slowest, self._written - _MOST_BEHIND_BYTES)) - self._dropped
        if useless > 0:
            del self._data[:useless]
            self._dropped += useless
            self._resized(self, -useless)


class MemoryReader:
    """A Reader of a MemoryRecording."""

    def __init__(self, recording: MemoryRecording) -> None:
        self.position = 0
        self._recording = recording

    async def head(self) -> AnswerHead:
        return await self._recording.head()

    async def read(self) -> tuple[bytes, bool]:
        data, completes = await self._recording.after(self.position)
        self.position += len(data)
        self._recording.has_read()
        return data, completes

    def close(self) -> None:
        self._recording.forget(self)


@dataclass(slots=True)
class _Entry:
    recording: MemoryRecording | None  # None: it was too large, or gave way to newer ones
    fingerprint: bytes
    expires: float


class MemoryIdempotencyStore:
    """IdempotencyStore of one process. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], limits: Limits = LIMITS) -> None:
        self._clock = clock
        self._limits = limits
        self._running: dict[IdempotencyKey, MemoryRecording] = {}
        self._ended: OrderedDict[IdempotencyKey, _Entry] = OrderedDict()  # the oldest first
        self._with_answers: deque[_Entry] = deque()  # those of them that hold bytes
        self._held_bytes = 0

    async def claim(self, key: IdempotencyKey, fingerprint: bytes) -> tuple[MemoryRecording, bool]:
        known = self.find(key, fingerprint)
        return (self.begin(key, fingerprint), True) if known is None else (known, False)

    @property
    def trouble(self) -> str | None:
        return None

    def state(self) -> Mapping[str, Any]:
        return {"mode": "memory", "running": len(self._running), "held_bytes": self._held_bytes}

    def find(self, key: IdempotencyKey, fingerprint: bytes) -> MemoryRecording | None:
        """The key's recording, if it is known here. Raises as `claim`."""
        self._expire()
        known = self._running.get(key) or self._ended.get(key)
        if known is None:
            return None
        if known.fingerprint != fingerprint:
            raise IdempotencyKeyReused
        recording = known.recording if isinstance(known, _Entry) else known
        if recording is None or recording.too_large:
            raise IdempotentAnswerNotKept
        return recording

    def begin(
        self, key: IdempotencyKey, fingerprint: bytes, and_then: Callable[[MemoryRecording, bool], None] = _nothing
    ) -> MemoryRecording:
        """A new one. `and_then` is told when it has ended, and whether its answer is to be kept."""

        def ended(recording: MemoryRecording, keep: bool) -> None:  # as recordings call it
            self._end(key, recording, keep=keep)
            and_then(recording, keep)

        recording = self._running[key] = MemoryRecording(fingerprint, self._resized, ended)
        return recording

    async def purge(self) -> None:
        """Forget what need not be kept any more, also when no request comes that would ask for it."""
        self._expire()

    def _expire(self) -> None:
        now = self._clock()
        while self._ended and next(iter(self._ended.values())).expires <= now:
            self._forget_oldest()

    def _resized(self, recording: MemoryRecording, by_bytes: int) -> None:
        self._held_bytes += by_bytes
        if by_bytes <= 0 or recording.too_large:
            return
        self._make_room()
        if recording.held_bytes > self._limits.answer_bytes or self._held_bytes > self._limits.total_bytes:
            _logger.warning("an answer with an idempotency key is too large to be kept")
            recording.stop_keeping()

    def _make_room(self) -> None:
        """The oldest answers give way, but their keys stay known: nothing is carried out twice for want of memory."""
        while self._with_answers and self._held_bytes > self._limits.total_bytes:
            self._release(self._with_answers.popleft())

    def _end(self, key: IdempotencyKey, recording: MemoryRecording, *, keep: bool) -> None:
        self._running.pop(key, None)
        entry = _Entry(recording, recording.fingerprint, self._clock() + KEPT_SECONDS)
        if recording.too_large or not keep:
            self._release(entry)
        else:
            self._with_answers.append(entry)
        if keep:
            self._ended[key] = entry
        if len(self._ended) > self._limits.answers:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, entry = self._ended.popitem(last=False)
        self._release(entry)
        if self._with_answers and self._with_answers[0] is entry:
            self._with_answers.popleft()

    def _release(self, entry: _Entry) -> None:
        if entry.recording is not None:
            self._held_bytes -= entry.recording.held_bytes
            entry.recording = None


@asynccontextmanager
async def memory_store(clock: Callable[[], float]) -> AsyncIterator[MemoryIdempotencyStore]:
    """A store that forgets in time also while no requests come."""
    store = MemoryIdempotencyStore(clock)
    async with repeating(store.purge, lambda: _PURGE_SECONDS, "idempotency keys"):
        yield store
