"""From spooled outcomes into the database."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import Unreadable, read
from proxy.infrastructure.persistence.bulk_insert import RowWriter
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, is_about_the_row, kind_of
from proxy.infrastructure.persistence.rows import LedgerRow
from proxy.infrastructure.turns import in_turns

_logger = logging.getLogger(__name__)
_NOBODY = ""


class Drain:
    """Books rows in batches. A row that the database refuses is set aside; a database that is away is waited for."""

    def __init__(self, writer: RowWriter, quarantine: Quarantine) -> None:
        self._writer = writer
        self._quarantine = quarantine
        self.booked_rows = 0
        self.last_error: str | None = None

    async def book_payloads(self, payloads: Sequence[bytes], holder: str = "") -> Sequence[LedgerRow] | None:
        """Books spooled outcomes and returns them; None when the database would not take them now."""
        rows: list[LedgerRow] = []
        unreadable: list[tuple[bytes, Unreadable]] = []
        async for payload in in_turns(payloads):
            try:
                row = read(payload)
            except Unreadable as problem:
                unreadable.append((payload, problem))
                continue
            if isinstance(row, LedgerRow):
                rows.append(row)
        if await self._book(rows, holder, again=False, is_own=True) is None:
            return None
        for payload, reason in unreadable:  # not before: the same payloads come again until their rows are booked
            self._quarantine.unreadable(payload, reason)
        return rows

    async def adopt(self, rows: Sequence[LedgerRow], holder: str, *, again: bool = False) -> int | None:
        """Books another process's rows, all or none; None when the database would not take them now.

        Otherwise how many that were: its process may have booked some of them before. `again` as RowWriter has it.
        """
        return await self._book(rows, holder, again=again, is_own=False)

    async def _book(self, rows: Sequence[LedgerRow], holder: str, *, again: bool, is_own: bool) -> int | None:
        if not rows:
            return 0  # which tells nothing of the database
        try:
            new = await self._writer.write(rows, holder, again=again)
        except DATABASE_ERRORS as problem:
            if is_about_the_row(problem):
                return await self._book_one_by_one(rows, holder, again=again, is_own=is_own)
            self._note(problem)
            return None
        return self._count(len(rows) if is_own else new)

    def _count(self, rows: int) -> int:
        """Own rows that are there already are those of a write whose answer was lost, and have not been counted."""
        if self.last_error is not None:
            _logger.info("ledger reaches its database again")
        self.last_error = None
        self.booked_rows += rows
        return rows

    async def release(self, holder: str) -> bool:
        """All that a process has written is booked: what it has leased is free again. False if not now."""
        try:
            await self._writer.release(holder)
        except DATABASE_ERRORS as problem:
            self._note(problem)
            return False
        self._count(0)
        return True

    async def ask(self) -> None:
        """Whether the database takes rows again, where there is none to book: by releasing what nobody holds."""
        await self.release(_NOBODY)

    async def _book_one_by_one(
        self, rows: Sequence[LedgerRow], holder: str, *, again: bool, is_own: bool
    ) -> int | None:
        booked_rows = 0
        for row in rows:
            try:
                new = await self._writer.write([row], holder, again=again)
            except DATABASE_ERRORS as problem:
                if not is_about_the_row(problem):
                    self._note(problem)
                    return None  # all again later: those booked by then are left as they are
                self._quarantine.row(row, problem)
                continue
            booked_rows += 1 if is_own else new
        return self._count(booked_rows)

    def _note(self, problem: BaseException) -> None:
        reason = kind_of(problem)
        if self.last_error is None:
            _logger.error("ledger cannot reach its database, rows wait", extra={"reason": reason})
        self.last_error = reason
