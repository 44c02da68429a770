"""The ledger's rows in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import RequestLog
from proxy.domain.values import CostAmount
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.owners import check_there, meant_by, names_of, owned_rows
from proxy.infrastructure.persistence.rows import ledger_row, readable_rows
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports


class PiccoloRequestLogs:
    """RequestLogRepository on either engine."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.request_logs

    async def save(self, row: RequestLog) -> RequestLog:
        await self.save_all([row])
        return row

    async def save_all(self, rows: Sequence[RequestLog]) -> None:
        """Book rows with one statement; ids that are booked already are left as they are."""
        table = self._table
        values = [msgspec.structs.asdict(ledger_row(row)) for row in rows]
        for each in values:
            del each["charges"]  # which only the ledger's writer books
        await table.insert(*(table(**each) for each in values)).on_conflict(action="DO NOTHING")

    async def get_recent(self, count: int, of: Sequence[Subject] = ()) -> Sequence[RequestLog]:
        if count <= 0:
            raise InvalidValue("Count must be greater than zero")
        table = self._table
        query = table.select().order_by(table.timestamp, ascending=False).limit(count)
        if not of:
            return readable_rows(await query)
        async with session(self._database) as reader:
            owned = await meant_by(reader, of)
        rows = readable_rows(await query.where(*owned_rows(owned)))
        if not rows:
            async with session(self._database) as reader:
                await check_there(reader, of)
        return rows

    async def key_names(self, rows: Sequence[RequestLog]) -> Mapping[UUID, str]:
        ids = {str(row.key_id) for row in rows if row.key_id is not None}
        if not ids:
            return {}
        async with session(self._database) as reader:
            return {UUID(id_): name for id_, name in (await names_of(reader, Scope.KEY, ids)).items()}

    async def get_total_cost(self, since: datetime) -> CostAmount:
        return CostAmount(await LedgerUsageReports(self._database).total_cost(since))
