"""Many different rows, booked and summed up, for tests of reports and of retention."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.rows import ledger_row
from proxy.infrastructure.persistence.sessions import session
from proxy.infrastructure.persistence.usage_rollups import RollupState, read_state, roll_up

ORGANISATION = UUID(int=21)
TEAMS = (UUID(int=11), UUID(int=12))
KEYS = {
    None: (None, None),
    UUID(int=1): (TEAMS[0], ORGANISATION),
    UUID(int=2): (TEAMS[1], ORGANISATION),
    UUID(int=3): (None, None),
}
START = datetime(2026, 3, 1, 21, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def some_rows(
    count: int,
    start: datetime = START,
    span: timedelta = 3 * DAY,
    seed: int = 7,
    keys: Sequence[UUID | None] = tuple(KEYS),
) -> list[RequestLog]:
    chance = random.Random(seed)  # noqa: S311
    rows = []
    for _ in range(count):
        key = chance.choice(keys)
        team, organisation = KEYS[key]
        source = chance.choice(list(CostSource))
        cost = CostAmount(Decimal(chance.randrange(10**13)).scaleb(-12))
        rows.append(
            RequestLog(
                model=ModelName(chance.choice(["a/one", "a/two", "b/three"])),
                provider_name=chance.choice(["OpenRouter", "Demo"]),
                timestamp=start + timedelta(microseconds=chance.randrange(span // timedelta(microseconds=1))),
                status=chance.choice(list(RequestStatus)),
                input_tokens=TokenCount(chance.randrange(10**6)),
                output_tokens=TokenCount(chance.randrange(10**6)),
                estimated_cost=None if source in (CostSource.UNKNOWN, CostSource.NONE) else cost,
                reported_cost=cost if source is CostSource.REPORTED else None,
                cost_source=source,
                response_time_ms=int(10 ** chance.uniform(0, 6)),
                time_to_first_byte_ms=chance.choice([None, chance.randrange(5000)]),
                key_id=key,
                team_id=team,
                organisation_id=organisation,
            )
        )
    return rows


def requests_of(rows: Iterable[RequestLog]) -> list[RequestLog]:
    """Without the calls that requests have made besides."""
    return [row for row in rows if row.status is not RequestStatus.HEDGED]


async def book(database: Database, rows: Iterable[RequestLog]) -> None:
    async with row_writer(database) as writer:
        await writer.write([ledger_row(row) for row in rows])


async def sum_up(database: Database) -> None:
    async with session(database) as work:
        await roll_up(work)


async def state_of(database: Database) -> RollupState:
    async with session(database) as work:
        return await read_state(work)
