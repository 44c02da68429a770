"""Virtual keys in memory: found without the database once they are known, and forgotten when they change."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from proxy.application.access import WRONG_KEY
from proxy.domain.access.known_keys import KnownKey
from proxy.domain.access.principals import Principal
from proxy.domain.errors import NotAuthenticated, NotServing
from proxy.domain.rate_limits import Priority
from proxy.infrastructure.access.changes import Changes
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, kind_of

MOST_KEYS: Final = 10_000
_MOST_LOOK_UPS = 500
_AT_A_TIME = 4  # the ledger needs connections, too
_UNKNOWN_SECONDS = 3.0
_AGAIN_SECONDS = 1.0
_UNHEARD_SECONDS = 10.0
_TRIES = 3
_RETRY_AFTER_SECONDS = 2.0
_NEVER: Final = float("-inf")


class KeySource(Protocol):
    """Where keys are kept."""

    async def find(self, key_hash: str, now: datetime) -> KnownKey | None:
        """The key with this hash, if it is good now. Raises DATABASE_ERRORS."""
        ...


class Confirmation(Protocol):
    """Until when all changes have been told."""

    @property
    def confirmed_at(self) -> float: ...


@dataclass(slots=True)
class _Entry:
    """`read_at` is when it was last known to be right. `again_at` is when it is to be read before it is used.

    Until `certain_until` nothing has to be asked: what the feed had confirmed is no older than it may be.
    """

    known: KnownKey
    read_at: float
    is_lasting: bool
    again_at: float | None = None
    tried_at: float = 0.0
    certain_until: float = _NEVER


class CachedKeyDirectory:
    """KeyDirectory over a source, with the least recently used keys forgotten first.

    What the change feed has not confirmed for `staleness_seconds` is used no more. What may have changed is read again
    before its next use, and serves on if the database does not answer; what has changed is forgotten.
    """

    def __init__(
        self,
        source: KeySource,
        feed: Confirmation,
        staleness_seconds: float,
        *,
        most_keys: int = MOST_KEYS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._feed = feed
        self._staleness_seconds = staleness_seconds
        self._most_keys = most_keys
        self._crowded = most_keys // 2
        self._now = now
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._look_ups: dict[str, asyncio.Task[KnownKey | None]] = {}
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self._generation = 0
        self.has_priorities = False

    def certain(self, key_hash: str) -> Principal | None:
        """The principal of a good key that the feed has confirmed so lately that there is nothing to ask."""
        entry = self._entries.get(key_hash)
        if entry is None or (self._clock() > entry.certain_until and not self._becomes_certain(entry)):
            return None
        if not entry.is_lasting and not entry.known.admits(key_hash, self._now()):
            return None
        if len(self._entries) > self._crowded:  # else nobody is forgotten soon
            self._entries.move_to_end(key_hash)
        return entry.known.principal

    def _becomes_certain(self, entry: _Entry) -> bool:
        if entry.again_at is not None:
            return False
        trusted_seconds = min(_UNHEARD_SECONDS, self._staleness_seconds)
        entry.certain_until = max(entry.read_at, self._feed.confirmed_at) + trusted_seconds
        return self._clock() <= entry.certain_until

    async def find(self, key_hash: str) -> Principal:
        """The principal of a good key. Raises NotAuthenticated, or NotServing when that cannot be said."""
        sure = self.certain(key_hash)
        if sure is not None:
            return sure
        entry = self._entries.get(key_hash)
        if entry is not None and entry.known.admits(key_hash, self._now()):
            found = await self._confirmed(key_hash, entry)
        elif self._unknown.get(key_hash, 0.0) > self._clock():
            found = None
        else:
            found = await self._look_up(key_hash)
        if found is None or not found.admits(key_hash, self._now()):
            raise NotAuthenticated(WRONG_KEY)
        return found.principal

    def remembered(self, key_hash: str) -> Principal | None:
        """Whom a key stood for when it was last read, if it is remembered."""
        entry = self._entries.get(key_hash)
        return None if entry is None else entry.known.principal

    async def _confirmed(self, key_hash: str, entry: _Entry) -> KnownKey | None:
        """The key as it is in memory, if that may still be relied on; else as it is now."""
        now = self._clock()
        confirmed_at = entry.read_at if entry.again_at is not None else max(entry.read_at, self._feed.confirmed_at)
        if now - confirmed_at > self._staleness_seconds:
            return await self._look_up(key_hash)
        if entry.again_at is not None and entry.again_at <= now:
            try:
                return await self._look_up(key_hash)
            except NotServing:
                entry.again_at = self._clock() + _AGAIN_SECONDS
        elif now - max(confirmed_at, entry.tried_at) > _UNHEARD_SECONDS:
            entry.tried_at = now  # nothing is heard of changes, but the database itself may answer
            _ = self._begin(key_hash)
        if key_hash in self._entries:
            self._entries.move_to_end(key_hash)
        return entry.known

    async def _look_up(self, key_hash: str) -> KnownKey | None:
        """As the source has it; all who ask for it at a time share one look. Raises NotServing."""
        if key_hash not in self._look_ups and len(self._look_ups) >= _MOST_LOOK_UPS:
            raise NotServing("Too many unknown API keys are being looked up.", _RETRY_AFTER_SECONDS)
        try:
            return await asyncio.shield(self._begin(key_hash))
        except DATABASE_ERRORS as problem:
            message = f"The API key cannot be checked now: the database does not answer ({kind_of(problem)})."
            raise NotServing(message, _RETRY_AFTER_SECONDS) from problem

    def _begin(self, key_hash: str) -> asyncio.Task[KnownKey | None]:
        running = self._look_ups.get(key_hash)
        if running is not None:
            return running
        task = asyncio.create_task(self._read(key_hash))
        self._look_ups[key_hash] = task

        def end(ended: asyncio.Task[KnownKey | None]) -> None:
            del self._look_ups[key_hash]
            if not ended.cancelled():
                ended.exception()  # told to those who wait, if anybody does

        task.add_done_callback(end)
        return task

    async def _read(self, key_hash: str) -> KnownKey | None:
        """A key that changes while it is read is read once more, else an old one would be kept."""
        async with self._places:
            known: KnownKey | None = None
            for _ in range(_TRIES):
                generation, began = self._generation, self._clock()
                known = await self._source.find(key_hash, self._now())
                if generation == self._generation:
                    self._keep(key_hash, known, began)
                    break
        return known

    def _keep(self, key_hash: str, known: KnownKey | None, read_at: float) -> None:
        if known is not None and known.admits(key_hash, self._now()):
            self._unknown.pop(key_hash, None)
            self._entries[key_hash] = _Entry(known, read_at, known.is_lasting)
            self.has_priorities = self.has_priorities or known.principal.priority is not Priority.NORMAL
            self._entries.move_to_end(key_hash)
            if len(self._entries) > self._most_keys:
                self._entries.popitem(last=False)
            return
        self._entries.pop(key_hash, None)
        self._unknown[key_hash] = self._clock() + _UNKNOWN_SECONDS
        self._unknown.move_to_end(key_hash)
        if len(self._unknown) > self._most_keys:
            self._unknown.popitem(last=False)

    def heed(self, changes: Changes) -> None:
        """A Subscriber: forgets what has changed."""
        self._generation += 1
        self._unknown.clear()
        if changes is None or any(change.kind in ("budgets", "rate_limits") for change in changes):
            self._doubt_all()
        changed = {(change.kind, change.object_id) for change in changes or ()}
        if not changed:
            return
        for key_hash, entry in list(self._entries.items()):
            principal = entry.known.principal
            of = (
                ("virtual_keys", str(principal.key_id)),
                ("teams", str(principal.team_id)),
                ("organisations", str(principal.organisation_id)),
            )
            if not changed.isdisjoint(of):
                del self._entries[key_hash]

    def _doubt_all(self) -> None:
        for entry in self._entries.values():
            if entry.again_at is None:
                entry.read_at = max(entry.read_at, self._feed.confirmed_at)
            entry.again_at = self._clock()
            entry.certain_until = _NEVER

    async def close(self) -> None:
        """Waits for what is being read: a cancelled SQLite query leaves a thread behind."""
        if self._look_ups:
            await asyncio.wait(list(self._look_ups.values()))


@asynccontextmanager
async def key_directory(
    source: KeySource, feed: Confirmation, staleness_seconds: float
) -> AsyncIterator[CachedKeyDirectory]:
    directory = CachedKeyDirectory(source, feed, staleness_seconds)
    try:
        yield directory
    finally:
        await directory.close()
