"""The ledger's rows in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import RequestLog
from proxy.domain.values import CostAmount
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.rows import ledger_row, request_log

# SQLite keeps NUMERIC as a float and its SUM() adds floats. Whole picodollars add exactly; in two parts, so that the
# sum of the larger ones cannot pass 64 bits.
_EXACT_SQLITE_SUM = """
    SELECT SUM(pico / 1000000), SUM(pico % 1000000) FROM (
        SELECT CAST(ROUND(COALESCE(reported_cost_usd, estimated_cost_usd) * 1e12) AS INTEGER) AS pico
        FROM request_logs WHERE timestamp >= {}
    )
"""
_POSTGRES_SUM = """
    SELECT SUM(COALESCE(reported_cost_usd, estimated_cost_usd)) AS total FROM request_logs WHERE timestamp >= {}
"""


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
        await table.insert(*(table(**msgspec.structs.asdict(ledger_row(row))) for row in rows)).on_conflict(
            target=table.id, action="DO NOTHING"
        )

    async def get_recent(self, count: int) -> Sequence[RequestLog]:
        if count <= 0:
            raise InvalidValue("Count must be greater than zero")
        table = self._table
        found = await table.select().order_by(table.timestamp, ascending=False).limit(count)
        return [request_log(columns) for columns in found]

    async def get_total_cost(self, since: datetime) -> CostAmount:
        if self._database.is_postgres:
            found = await self._table.raw(_POSTGRES_SUM, since)
            return CostAmount(found[0]["total"] or Decimal(0))
        found = await self._table.raw(_EXACT_SQLITE_SUM, since)
        millionths, pico = (value or 0 for value in found[0].values())
        return CostAmount(Decimal(millionths).scaleb(-6) + Decimal(pico).scaleb(-12))
