"""IdempotencyStore of one of several processes.

What runs here, and what ended here, is in this process's memory. Any other key is asked for in the registry. While
another process carries the request out, its answer is waited for; it comes as a whole. Where the registry is lost, the
process goes by its own memory, as one without any; but what others are known to have taken is not carried out twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from proxy.application.idempotency import IdempotencyKey
from proxy.domain.errors import IdempotencyKeyReused, IdempotentAnswerNotKept, IdempotentRequestRunning
from proxy.infrastructure.idempotency.memory import MemoryIdempotencyStore, MemoryRecording, memory_store
from proxy.infrastructure.idempotency.records import Claim, Record, State
from proxy.infrastructure.idempotency.registry import KeyRegistry, RegistryLost
from proxy.infrastructure.periodic import repeating

_logger = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.25
_KEEP_SECONDS: Final = 1.0
_TOKEN_BYTES: Final = 16


class SharedIdempotencyStore:
    """`most_seconds` is how long another process is waited for; `clock` gives seconds."""

    def __init__(
        self, memory: MemoryIdempotencyStore, registry: KeyRegistry, most_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._memory = memory
        self._registry = registry
        self._most_seconds = most_seconds
        self._clock = clock
        self._lost_by: str | None = None
        self._telling: set[asyncio.Task[None]] = set()

    async def claim(self, key: IdempotencyKey, fingerprint: bytes) -> tuple[MemoryRecording, bool]:
        """See IdempotencyStore."""
        name, claim = _name_of(key), Claim(secrets.token_bytes(_TOKEN_BYTES), fingerprint)
        awaited: bytes | None = None
        pause_seconds, end = _FIRST_PAUSE_SECONDS, self._clock() + self._most_seconds
        while (known := self._memory.find(key, fingerprint)) is None:
            record = await self._record(name, claim, awaited)
            if record is None:
                return self._begin(key, name, claim)
            if record.claim.fingerprint != fingerprint:
                raise IdempotencyKeyReused
            if record.state is not State.RUNNING:
                if record.answer is None:
                    raise IdempotentAnswerNotKept
                return MemoryRecording.of(record.answer), False
            if self._clock() > end:
                raise IdempotentRequestRunning
            if awaited is not None:  # at first, whoever has it may be another request of this process
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            awaited = record.claim.token
        return known, False

    async def _record(self, name: str, claim: Claim, awaited: bytes | None) -> Record | None:
        """What the registry says; None also if it says nothing. Raises IdempotentRequestRunning if it cannot any more.

        A caller that goes away in the meantime leaves no claim behind.
        """
        if self._lost_by is not None and awaited is None:
            return None
        asking = asyncio.create_task(self._registry.claim(name, claim, awaited))
        try:
            return await asyncio.shield(asking)
        except RegistryLost as problem:
            self._note_loss(problem)
            if problem.is_taken or awaited is not None:
                self._tell(self._give_back(asking, name, claim))
                raise IdempotentRequestRunning from problem
            return None
        except asyncio.CancelledError:
            self._tell(self._give_back(asking, name, claim))
            raise

    async def _give_back(self, asking: asyncio.Task[Record | None], name: str, claim: Claim) -> None:
        await asyncio.wait([asking])
        if asking.cancelled() or asking.exception() is not None or asking.result() is None:
            await self._registry.finish(name, claim, State.RUNNING, None)

    def _begin(self, key: IdempotencyKey, name: str, claim: Claim) -> tuple[MemoryRecording, bool]:
        def ended(recording: MemoryRecording, keep: bool) -> None:  # as recordings call it
            state = State.DONE if keep else State.FAILED if recording.is_complete else State.RUNNING
            self._tell(self._registry.finish(name, claim, state, recording.answer))

        try:
            known = self._memory.find(key, claim.fingerprint)  # begun here meanwhile, by one that could not ask
        except (IdempotencyKeyReused, IdempotentAnswerNotKept):
            self._tell(self._registry.finish(name, claim, State.RUNNING, None))
            raise
        if known is not None:
            self._tell(self._registry.finish(name, claim, State.RUNNING, None))
            return known, False
        return self._memory.begin(key, claim.fingerprint, ended), True

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        """In the background; nobody waits for it but the end of the process."""

        async def told() -> None:
            try:
                await telling
            except RegistryLost as problem:
                self._note_loss(problem)

        task = asyncio.create_task(told(), name="idempotency registry")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _note_loss(self, problem: RegistryLost) -> None:
        if self._lost_by is None:
            _logger.warning(self._registry.trouble, extra={"reason": str(problem)})
        self._lost_by = str(problem)

    async def keep(self) -> None:
        """To be called each second."""
        try:
            if self._lost_by is not None:
                await self._registry.probe()
                self._lost_by = None
                _logger.info("idempotency keys are shared again")
            await self._registry.keep()
        except RegistryLost as problem:
            self._note_loss(problem)

    async def end(self) -> None:
        """When all requests have ended."""
        while self._telling:
            await asyncio.wait(self._telling)
        with suppress(RegistryLost):
            await self._registry.close()

    @property
    def trouble(self) -> str | None:
        """See IdempotencyStore."""
        return None if self._lost_by is None else f"{self._registry.trouble} ({self._lost_by})"

    def state(self) -> Mapping[str, Any]:
        """See IdempotencyStore."""
        is_lost = self._lost_by is not None
        mode = "memory" if is_lost else self._registry.mode
        return {**self._memory.state(), "mode": mode, "last_error": self._lost_by}


def _name_of(key: IdempotencyKey) -> str:
    """Tells nothing of whose it is, or what it says."""
    return hashlib.sha256(f"{key.principal}\0{key.value}".encode()).hexdigest()


@asynccontextmanager
async def shared_store(
    registry: KeyRegistry, most_seconds: float, clock: Callable[[], float]
) -> AsyncIterator[SharedIdempotencyStore]:
    """A store that is in touch with the registry until the end."""
    async with memory_store(clock) as memory:
        store = SharedIdempotencyStore(memory, registry, most_seconds, clock)
        try:
            async with repeating(store.keep, lambda: _KEEP_SECONDS, "idempotency registry"):
                yield store
        finally:
            await store.end()
