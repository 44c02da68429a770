"""Finding a booked request with its trace."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from uuid import UUID

from proxy.domain.access.scopes import GATEWAY, Subject
from proxy.domain.errors import InvalidValue
from proxy.domain.explanation import ExplainedRequest
from proxy.domain.request_log import RequestLog
from proxy.domain.trace import RequestTrace
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS, not_serving
from proxy.infrastructure.persistence.owners import OwnedBy, owned_rows
from proxy.infrastructure.persistence.owners import within as owners_within
from proxy.infrastructure.persistence.rows import readable_rows
from proxy.infrastructure.persistence.sessions import session

_logger = logging.getLogger(__name__)
_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_MOST_ROWS = 50
_TIMEOUT_SECONDS = 15.0


class LedgerRequestArchive:
    """RequestArchive on either engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, asked: str, within: Subject = GATEWAY) -> ExplainedRequest | None:
        if not _ID.fullmatch(asked):
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await self._find(asked, owners_within(within))
        except DATABASE_ERRORS as problem:
            raise not_serving(problem) from problem

    async def _find(self, asked: str, owned: Sequence[OwnedBy]) -> ExplainedRequest | None:
        named = await self._row(asked, owned)
        rows = await self._rows(named.request_id if named else asked, owned)
        if not rows:
            return None
        traces = await self._traces([row.id for row in rows])
        # A call that lost against another one has the same time; the trace is with the one that won.
        row = named or max(rows, key=lambda each: (each.timestamp, each.id in traces))
        return ExplainedRequest(row, traces.get(row.id), [other for other in rows if other.id != row.id])

    async def _row(self, asked: str, owned: Sequence[OwnedBy]) -> RequestLog | None:
        try:
            row_id = UUID(asked)
        except ValueError:
            return None
        table = self._database.request_logs
        found = readable_rows(await table.select().where(table.id == row_id, *owned_rows(owned)))
        return found[0] if found else None

    async def _rows(self, request_id: str, owned: Sequence[OwnedBy]) -> Sequence[RequestLog]:
        table = self._database.request_logs
        wanted = table.select().where(table.request_id == request_id, *owned_rows(owned))
        query = wanted.order_by(table.timestamp, ascending=False)
        return readable_rows(await query.limit(_MOST_ROWS))

    async def _traces(self, row_ids: Sequence[UUID]) -> Mapping[UUID, RequestTrace]:
        places = ", ".join(f"${place}" for place in range(1, len(row_ids) + 1))
        query = f"SELECT id, trace FROM request_traces WHERE id IN ({places})"  # noqa: S608  # numbers
        async with session(self._database) as reader:
            found = await reader.fetch(query, *map(str, row_ids))
        return {UUID(str(row_id)): trace for row_id, text in found if (trace := _read(text)) is not None}


def _read(text: str) -> RequestTrace | None:
    """None for what a later version has written: the row can be shown all the same."""
    try:
        return RequestTrace.from_compact(text)
    except InvalidValue as problem:
        _logger.warning("trace not read", extra={"reason": str(problem)})
        return None
