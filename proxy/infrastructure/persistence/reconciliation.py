# ruff: noqa: S608  # every name in these statements is ours; what is not is an argument
"""Rows of uncertain cost, and what came of asking the provider for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from proxy.application.reconcile import Census, Search
from proxy.domain.reconciliation import Bill, Outcome, UnsettledRow, pause_after
from proxy.domain.request_log import CostSource, UsageSource
from proxy.domain.values import CostAmount
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.sessions import Session, moment, session
from proxy.infrastructure.persistence.tables import MONEY_DIGITS

_BEGINNING, _NEVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_MONEY_STEP = Decimal(1).scaleb(-MONEY_DIGITS[1])
_FIRST_ID = UUID(int=0)
_TRIES = 5

_COST_IS_UNCERTAIN = """
    cost_source <> 'reported' OR usage_source = 'estimated' OR status IN ('interrupted', 'client_disconnected')
"""
# As the index `request_logs_unsettled` has it, or it is not used.
_UNSETTLED = f"generation_id IS NOT NULL AND ({_COST_IS_UNCERTAIN})"
# Concatenated, as SQLite would rather go through all rows of the provider.
_IN_SPAN = "provider_name || '' = $1 AND timestamp >= $2 AND timestamp < $3"
_ASKED = "request_logs LEFT JOIN cost_reconciliations AS asked ON asked.row_id = request_logs.id"
_CAN_BE_ASKED = f"{_UNSETTLED} AND cost_source <> 'none' AND generation_id LIKE 'gen-%' AND {_IN_SPAN}"
_CENSUS = f"""SELECT
        COUNT(CASE WHEN asked.row_id IS NULL OR asked.ask_again_at <= $4 THEN 1 END),
        COUNT(CASE WHEN asked.outcome IN ('not_found', 'no_answer') AND asked.ask_again_at > $4 THEN 1 END),
        COUNT(CASE WHEN asked.outcome = 'given_up' THEN 1 END)
    FROM {_ASKED} WHERE {_CAN_BE_ASKED}"""
# Requests that were refused, or failed before anything was generated, cost nothing that one could ask for.
_CANNOT_BE_ASKED = f"""SELECT status, COUNT(*) FROM request_logs
    WHERE {_IN_SPAN} AND (generation_id IS NULL OR generation_id NOT LIKE 'gen-%')
        AND cost_source NOT IN ('reported', 'none') AND status NOT IN ('refused', 'upstream_error')
    GROUP BY status ORDER BY status"""
_FIND = f"""SELECT request_logs.id, timestamp, model_used, generation_id, usage_source, cost_source,
        estimated_cost_usd, reported_cost_usd, asked.attempts, asked.missing_since
    FROM {_ASKED}
    WHERE {_CAN_BE_ASKED} AND (asked.row_id IS NULL OR asked.ask_again_at <= $4)
        AND timestamp >= $5 AND (timestamp > $5 OR request_logs.id > $6)
    ORDER BY timestamp, request_logs.id LIMIT $7"""
_REMEMBER = """INSERT INTO cost_reconciliations AS known (row_id, row_timestamp, outcome, attempts, checked_at,
        ask_again_at, missing_since, provider_total_cost_usd, previous_cost_usd, previous_cost_source)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (row_id) DO UPDATE SET outcome = excluded.outcome, attempts = excluded.attempts,
        checked_at = excluded.checked_at, ask_again_at = excluded.ask_again_at,
        missing_since = COALESCE(known.missing_since, excluded.missing_since),
        provider_total_cost_usd = excluded.provider_total_cost_usd,
        previous_cost_usd = excluded.previous_cost_usd, previous_cost_source = excluded.previous_cost_source
    WHERE known.outcome <> 'billed'"""
_SETTLE = """UPDATE request_logs SET reported_cost_usd = $3, cost_source = 'reported',
        input_tokens = COALESCE(CAST($4 AS BIGINT), input_tokens),
        output_tokens = COALESCE(CAST($5 AS BIGINT), output_tokens),
        usage_source = CASE WHEN CAST($4 AS BIGINT) IS NULL THEN usage_source ELSE 'reported' END
    WHERE id = $1 AND timestamp = $2"""


class LedgerReconciliation:
    """UnsettledRows on either engine. All methods raise DATABASE_ERRORS."""

    def __init__(self, database: Database, provider_name: str) -> None:
        self._database = database
        self._provider_name = provider_name

    async def census(self, search: Search, now: datetime) -> Census:
        span = self._span(search)
        async with session(self._database) as reader:
            ((to_ask, later, given_up),) = await reader.fetch(_CENSUS, *span, _due(search, now))
            unaskable = await reader.fetch(_CANNOT_BE_ASKED, *span)
        return Census(to_ask, later, given_up, {row[0]: row[1] for row in unaskable})

    async def find(
        self, search: Search, now: datetime, after: UnsettledRow | None, limit: int
    ) -> Sequence[UnsettledRow]:
        place = (after.timestamp, self._id(after.id)) if after else (_BEGINNING, self._id(_FIRST_ID))
        async with session(self._database) as reader:
            found = await reader.fetch(_FIND, *self._span(search), _due(search, now), *place, limit)
        return [_unsettled(row) for row in found]

    async def book(self, row: UnsettledRow, bill: Bill, now: datetime) -> None:
        async with session(self._database) as work:
            for tries_left in reversed(range(_TRIES)):
                try:
                    async with work.snapshot(writing=True):
                        await self._book(work, row, bill, now)
                    return
                except asyncpg.SerializationError:  # another process has been at the same row
                    if not tries_left:
                        raise

    async def _book(self, work: Session, row: UnsettledRow, bill: Bill, now: datetime) -> None:
        previous = row.reported if row.reported is not None else row.estimated
        costs = f"{bill.cost.usd:f}", _text(previous), row.cost_source.value
        what = Outcome.BILLED.value, row.attempts + 1, now, None, None, *costs
        if await work.execute(_REMEMBER, *self._key(row), *what):
            tokens = bill.tokens_for(row)
            counts = (None, None) if tokens is None else (tokens[0].value, tokens[1].value)
            await work.execute(_SETTLE, *self._key(row), bill.cost.usd.quantize(_MONEY_STEP), *counts)

    async def postpone(self, row: UnsettledRow, outcome: Outcome, now: datetime) -> None:
        attempts = row.attempts + 1
        again = _NEVER if outcome is Outcome.GIVEN_UP else now + pause_after(attempts)
        missing_since = None if outcome is Outcome.NO_ANSWER else now
        async with session(self._database) as work:
            await work.execute(
                _REMEMBER, *self._key(row), outcome.value, attempts, now, again, missing_since, None, None, None
            )

    async def forget(self, before: datetime) -> None:
        """Forget about rows from before that time, which are kept no more."""
        async with session(self._database) as work:
            await work.execute("DELETE FROM cost_reconciliations WHERE row_timestamp < $1", before)

    def _span(self, search: Search) -> tuple[str, datetime, datetime]:
        return self._provider_name, search.since or _BEGINNING, search.until or _NEVER

    def _key(self, row: UnsettledRow) -> tuple[UUID | str, datetime]:
        return self._id(row.id), row.timestamp

    def _id(self, row_id: UUID) -> UUID | str:
        return row_id if self._database.is_postgres else str(row_id)


def _due(search: Search, now: datetime) -> datetime:
    return _NEVER if search.again else now


def _unsettled(columns: Sequence[Any]) -> UnsettledRow:
    row_id, timestamp, model, generation_id, usage, source, estimated, reported, attempts, missing_since = columns
    return UnsettledRow(
        id=row_id if isinstance(row_id, UUID) else UUID(str(row_id)),
        timestamp=moment(timestamp) or _BEGINNING,
        model=model,
        generation_id=generation_id,
        usage_source=UsageSource(usage),
        cost_source=CostSource(source),
        estimated=_cost(estimated),
        reported=_cost(reported),
        attempts=attempts or 0,
        missing_since=moment(missing_since),
    )


def _cost(value: Any) -> CostAmount | None:
    """SQLite gives back a float or an integer; the column has 12 decimals."""
    return None if value is None else CostAmount(Decimal(str(value)).quantize(_MONEY_STEP))


def _text(cost: CostAmount | None) -> str | None:
    return None if cost is None else f"{cost.usd.normalize():f}"
