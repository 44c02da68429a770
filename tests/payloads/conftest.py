"""What tests of payloads need: rows, captures, and the stored payloads of a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import pytest

from proxy.application.payloads import Capture, StoredPayload
from proxy.bootstrap.storage import payload_archive
from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.domain.values import ModelName
from proxy.infrastructure.payloads.preparing import PayloadRow
from proxy.infrastructure.persistence.database import Database, open_database
from proxy.settings import Settings


@dataclass
class Writer:
    """A PayloadWriter that can be away, and that can dislike a row."""

    written: list[PayloadRow] = field(default_factory=list)
    failures: int = 0  # that many writes will still fail
    disliked: str = ""
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, rows: Sequence[PayloadRow]) -> None:
        self.has_begun.set()
        await self.is_open.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionRefusedError
        if any(row.request_id == self.disliked for row in rows):
            raise asyncpg.DataError("no")
        self.written.extend(rows)

    def names(self) -> list[str]:
        return [row.request_id for row in self.written]


def row(name: str = "r", status: RequestStatus = RequestStatus.SUCCESS) -> RequestLog:
    return RequestLog(model=ModelName("m/x"), provider_name="p", request_id=name, status=status)


def capture(request: bytes = b"question", *response: bytes, max_bytes: int = 100) -> Capture:
    made = Capture(max_bytes, request=request, content_type="application/json")
    for chunk in response or (b"answer",):
        made.add(chunk)
    return made


async def stored_payloads(settings: Settings, request_id: str | UUID) -> Sequence[StoredPayload]:
    """What is stored now."""
    async with payload_archive(settings) as archive:
        return await archive.find(str(request_id))


async def stored_payload(settings: Settings, request_id: str | UUID) -> StoredPayload:
    """The one payload of that request, once it is there."""
    async with payload_archive(settings) as archive, asyncio.timeout(20):
        while not (found := await archive.find(str(request_id))):
            await asyncio.sleep(0.02)
    (payload,) = found
    return payload


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Migrated, once on each engine."""
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
def writer() -> Writer:
    """One that takes everything at once."""
    made = Writer()
    made.is_open.set()
    return made
