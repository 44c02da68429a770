"""Requests that are sent again: one of them is carried out, and all get its answer.

The first request with a key starts a production: a task that carries the request out and records the answer. Everybody
who sent the key, the first one included, reads the recording: what there is of it at once, the rest as it comes. So
the production outlives the client that started it as long as another one reads, and no longer.

Whether other processes know a key is the store's business. Answers that they got come as recordings that have ended.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

KEPT_SECONDS = 600.0
_LARGE_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key is its principal's own: two may choose the same."""

    principal: str
    value: str


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What an answer is told by before its bytes. `error_type` is the ledger's word for what went wrong, if it did."""

    status: int
    headers: Mapping[str, str]
    is_stream: bool = False
    error_type: str | None = None


class Reader(Protocol):
    """One client's place in a recording."""

    async def head(self) -> AnswerHead:
        """Waits for it. Raises what ended the production, if that came first."""
        ...

    async def read(self) -> tuple[bytes, bool]:
        """The next bytes, and whether the answer is complete with them; no bytes when there are no more.

        Raises StreamBroken when this client is so far behind that the bytes are gone.
        """
        ...

    def close(self) -> None:
        """Nobody reads here any more."""
        ...


class Recording(Protocol):
    """One answer as it comes."""

    @property
    def is_complete(self) -> bool:
        """All that makes the answer whole has been written."""
        ...

    @property
    def has_readers(self) -> bool: ...

    def reader(self) -> Reader:
        """A place at its beginning."""
        ...

    def begin(self, head: AnswerHead) -> None:
        """Before anything is written, once."""
        ...

    async def write(self, data: bytes, *, completes: bool = False) -> None:
        """Waits while no reader keeps up. `completes`: the answer is whole with these bytes."""
        ...

    def end(self, *, keep: bool, error: Exception | None = None) -> None:
        """Nothing more comes. The key is free again unless the answer is to be kept; `error` is raised in readers."""
        ...


class IdempotencyStore(Protocol):
    """Recordings by key: of requests that run, and for `KEPT_SECONDS` of those that ended."""

    async def claim(self, key: IdempotencyKey, fingerprint: bytes) -> tuple[Recording, bool]:
        """The key's recording, and whether it was made just now: then the caller has to write it.

        Raises:
            IdempotencyKeyReused: the key has another fingerprint.
            IdempotentAnswerNotKept: the recording is there no more, but the key's time is not over.
            IdempotentRequestRunning: another process carries it out, and it was waited for long enough.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """Why fewer processes know the keys than should."""
        ...

    def state(self) -> Mapping[str, Any]:
        """For the health report: `mode` says who knows the keys."""
        ...


Produce = Callable[[Recording], Awaitable[bool]]
"""Carries a request out and records its answer; True if the answer may be sent again."""


class SharedAnswer:
    """An answer that others may be reading too. Leave it in any case."""

    def __init__(
        self, recording: Recording, reader: Reader, production: asyncio.Task[None] | None, *, is_first: bool
    ) -> None:
        self.is_first = is_first  # whose request is carried out
        self._recording = recording
        self._reader = reader
        self._production = production

    async def head(self) -> AnswerHead:
        """See `Reader.head`."""
        return await self._reader.head()

    async def read(self) -> tuple[bytes, bool]:
        """See `Reader.read`."""
        return await self._reader.read()

    async def leave(self) -> None:
        """The last one to leave ends the production, unless its answer is complete.

        The first one stays for the end of the production in any case, since the books of it are his.
        """
        self._reader.close()
        if self._production is None:
            return
        is_deserted = not self._recording.has_readers
        if is_deserted and not self._recording.is_complete:
            self._recording.end(keep=False)  # at once: whoever comes now must not join what is being cancelled
            self._production.cancel()
        if is_deserted or self.is_first:
            await asyncio.wait([self._production])


class Idempotency:
    """Lets requests with the same key share one answer."""

    def __init__(self, store: IdempotencyStore) -> None:
        self._store = store
        self._productions: dict[Recording, asyncio.Task[None]] = {}

    @property
    def trouble(self) -> str | None:
        """See `IdempotencyStore.trouble`."""
        return self._store.trouble

    def state(self) -> Mapping[str, Any]:
        """See `IdempotencyStore.state`."""
        return self._store.state()

    async def join(self, key: IdempotencyKey, body: bytes, produce: Produce) -> SharedAnswer:
        """The answer to that request; `produce` is called if there is none yet. Raises as `IdempotencyStore.claim`."""
        recording, is_first = await self._store.claim(key, await _fingerprint(body))
        reader = recording.reader()
        if is_first:
            task = asyncio.create_task(_recorded(recording, produce), name="idempotent request")
            self._productions[recording] = task
            task.add_done_callback(lambda _: self._productions.pop(recording))
        return SharedAnswer(recording, reader, self._productions.get(recording), is_first=is_first)


async def _recorded(recording: Recording, produce: Produce) -> None:
    """A production that always ends its recording."""
    keep, error = False, None
    try:
        keep = await produce(recording)
    except Exception as problem:  # noqa: BLE001  # the readers raise it
        error = problem
    finally:
        recording.end(keep=keep, error=error)


async def _fingerprint(body: bytes) -> bytes:
    if len(body) > _LARGE_BODY_BYTES:
        return await asyncio.to_thread(_digest, body)
    return _digest(body)


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
