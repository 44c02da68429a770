"""The ledger's rows in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from proxy.domain.errors import InvalidValue
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.tables import MONEY_DIGITS, NAME_LENGTH, WORD_LENGTH

_MONEY_STEP = Decimal(1).scaleb(-MONEY_DIGITS[1])
_MAX_MONEY = Decimal(10) ** (MONEY_DIGITS[0] - MONEY_DIGITS[1]) - _MONEY_STEP
_MAX_INT, _MAX_SMALL_INT, _MAX_BIG_INT = 2**31 - 1, 2**15 - 1, 2**63 - 1
_ID_LENGTH = 128

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
        await table.insert(*(table(**columns_of(row)) for row in rows)).on_conflict(
            target=table.id, action="DO NOTHING"
        )

    async def get_recent(self, count: int) -> Sequence[RequestLog]:
        if count <= 0:
            raise InvalidValue("Count must be greater than zero")
        table = self._table
        found = await table.select().order_by(table.timestamp, ascending=False).limit(count)
        return [_from_columns(columns) for columns in found]

    async def get_total_cost(self, since: datetime) -> CostAmount:
        if self._database.is_postgres:
            found = await self._table.raw(_POSTGRES_SUM, since)
            return CostAmount(found[0]["total"] or Decimal(0))
        found = await self._table.raw(_EXACT_SQLITE_SUM, since)
        millionths, pico = (value or 0 for value in found[0].values())
        return CostAmount(Decimal(millionths).scaleb(-6) + Decimal(pico).scaleb(-12))


def columns_of(row: RequestLog) -> dict[str, Any]:
    """The row as column values that both engines take: clamped to the columns' ranges, no NUL bytes."""
    return {
        "id": row.id,
        "request_id": _text(row.request_id, _ID_LENGTH),
        "timestamp": row.timestamp,
        "requested_model": _text(row.requested_model, NAME_LENGTH),
        "model_used": _text(row.model.value, NAME_LENGTH),
        "model_provider": _text(row.model.provider, NAME_LENGTH),
        "provider_name": _text(row.provider_name, WORD_LENGTH),
        "status": row.status.value,
        "http_status": row.http_status,
        "error_type": _text(row.error_type, WORD_LENGTH),
        "stream": row.stream,
        "attempts": min(row.attempts, _MAX_SMALL_INT),
        "was_fallback": row.was_fallback,
        "input_tokens": min(row.input_tokens.value, _MAX_BIG_INT),
        "output_tokens": min(row.output_tokens.value, _MAX_BIG_INT),
        "cached_tokens": _whole(row.cached_tokens),
        "reasoning_tokens": _whole(row.reasoning_tokens),
        "usage_source": row.usage_source.value,
        "estimated_cost_usd": _money(row.estimated_cost),
        "reported_cost_usd": _money(row.reported_cost),
        "cost_source": row.cost_source.value,
        "response_time_ms": min(row.response_time_ms, _MAX_INT),
        "time_to_first_byte_ms": None
        if row.time_to_first_byte_ms is None
        else min(row.time_to_first_byte_ms, _MAX_INT),
        "generation_id": _text(row.generation_id, _ID_LENGTH),
    }


def _text(value: str | None, length: int) -> str | None:
    """PostgreSQL takes no NUL, neither engine a lone surrogate."""
    if value is None:
        return None
    return value.replace("\x00", "").encode(errors="replace").decode()[:length]


def _whole(value: int | None) -> int | None:
    return None if value is None else max(-_MAX_BIG_INT, min(value, _MAX_BIG_INT))


def _money(cost: CostAmount | None) -> Decimal | None:
    return None if cost is None else min(cost.usd, _MAX_MONEY).quantize(_MONEY_STEP)


def _from_columns(columns: dict[str, Any]) -> RequestLog:
    return RequestLog(
        id=columns["id"],
        request_id=columns["request_id"],
        timestamp=columns["timestamp"].astimezone(UTC),
        requested_model=columns["requested_model"],
        model=ModelName(columns["model_used"]),
        provider_name=columns["provider_name"],
        status=RequestStatus(columns["status"]),
        http_status=columns["http_status"],
        error_type=columns["error_type"],
        stream=columns["stream"],
        attempts=columns["attempts"],
        was_fallback=columns["was_fallback"],
        input_tokens=TokenCount(columns["input_tokens"]),
        output_tokens=TokenCount(columns["output_tokens"]),
        cached_tokens=columns["cached_tokens"],
        reasoning_tokens=columns["reasoning_tokens"],
        usage_source=UsageSource(columns["usage_source"]),
        estimated_cost=_cost(columns["estimated_cost_usd"]),
        reported_cost=_cost(columns["reported_cost_usd"]),
        cost_source=CostSource(columns["cost_source"]),
        response_time_ms=columns["response_time_ms"],
        time_to_first_byte_ms=columns["time_to_first_byte_ms"],
        generation_id=columns["generation_id"],
    )


def _cost(value: Decimal | None) -> CostAmount | None:
    """SQLite gives back a float's digits; the column has 12 decimals."""
    return None if value is None else CostAmount(Decimal(value).quantize(_MONEY_STEP))
