"""Bodies of requests and answers, for those who want to see them: apart from the ledger, and off unless asked for.

Payloads are no ledger: nothing waits for them, and when they come too fast they are dropped and counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from proxy.domain.request_log import RequestLog

Redaction = Callable[[bytes], bytes]
"""Takes a body and gives what may be stored of it. Called in a thread; when it raises, nothing is stored."""


class PayloadMode(StrEnum):
    """Whose bodies are stored."""

    OFF = "off"
    ERRORS = "errors"  # of requests that did not end with success
    ALL = "all"


@dataclass(slots=True)
class Capture:
    """References to the bodies of one request, gathered while it is served; of a stream its beginning only."""

    max_bytes: int
    request: bytes | None = None
    response: list[bytes] = field(default_factory=list)
    response_bytes: int = 0
    content_type: str | None = None

    def add(self, chunk: bytes) -> None:
        """Bytes that went to the client."""
        if self.response_bytes < self.max_bytes:
            self.response.append(chunk)
        self.response_bytes += len(chunk)

    def noting(self, write: Callable[[bytes], Awaitable[None]]) -> Callable[[bytes], Awaitable[None]]:
        """A `write` that notes what went through it; what could not be written is not noted."""

        async def write_and_note(chunk: bytes) -> None:
            await write(chunk)
            self.add(chunk)

        return write_and_note

    def held_bytes(self) -> int:
        """The memory that its references keep from being freed."""
        return len(self.request or b"") + sum(map(len, self.response))


@dataclass(frozen=True, slots=True)
class StoredBody:
    """What is stored of a body, and how long it was when it went over the wire."""

    body: bytes
    full_bytes: int
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """A request's bodies. None: there was none, or it was not read to its end."""

    id: UUID  # of the ledger's row
    request_id: str
    timestamp: datetime
    request: StoredBody | None
    response: StoredBody | None
    content_type: str | None


class PayloadStore(Protocol):
    """Takes bodies in passing, and stores them later."""

    @property
    def is_on(self) -> bool:
        """Whether a capture is wanted at all."""
        ...

    @property
    def max_bytes(self) -> int:
        """How much of a body is stored."""
        ...

    def offer(self, row: RequestLog, capture: Capture) -> None:
        """Hand over a request's bodies when it has been booked; returns at once and never raises."""
        ...

    def state(self) -> Mapping[str, Any]:
        """For the health report."""
        ...


class NoPayloads:
    """The PayloadStore that stores none."""

    is_on = False
    max_bytes = 0

    def offer(self, row: RequestLog, capture: Capture) -> None:
        pass

    def state(self) -> Mapping[str, Any]:
        return {"mode": PayloadMode.OFF.value}


class PayloadArchive(Protocol):
    """The stored payloads."""

    async def find(self, request_id: str) -> Sequence[StoredPayload]:
        """Those of a request id, or of a ledger row's id, newest first: clients may use a request id twice."""
        ...
