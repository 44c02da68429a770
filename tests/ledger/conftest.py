"""What tests of the ledger need: a writer that can be away, and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest

from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.rows import LedgerRow


@dataclass
class Writer:
    """A RowWriter that can be away, and that can dislike a row. Keeps the first of two rows with one id.

    With `keeps_sealed_hours` False, rows that are written again are not looked for, as if retention had dropped them.
    """

    booked: dict[str, LedgerRow] = field(default_factory=dict)
    is_away: bool = False
    trouble: type[Exception] | Exception = ConnectionRefusedError
    disliked: str = ""
    writes: int = 0
    keeps_sealed_hours: bool = True
    released: list[str] = field(default_factory=list)

    async def write(self, rows: Sequence[LedgerRow], holder: str = "", *, again: bool = False) -> int:
        if self.is_away:
            raise self.trouble
        self.writes += 1
        assert holder not in self.released
        if again and not self.keeps_sealed_hours:
            return 0
        if any(row.request_id == self.disliked for row in rows):
            raise asyncpg.DataError("no")
        before = len(self.booked)
        for row in rows:
            self.booked.setdefault(str(row.id), row)
        return len(self.booked) - before

    async def release(self, holder: str) -> None:
        if self.is_away:
            raise self.trouble
        self.released.append(holder)

    def names(self) -> list[str]:
        return [row.request_id for row in self.booked.values()]


@pytest.fixture
def writer() -> Writer:
    return Writer()


def row(name: str = "r") -> RequestLog:
    return RequestLog(model=ModelName("m/x"), provider_name="p", request_id=name)


def intent_of(one: RequestLog) -> RequestIntent:
    return RequestIntent(one.id, one.timestamp, one.request_id, "m/x", "m/x", "p", stream=False)
