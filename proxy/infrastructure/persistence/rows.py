"""A ledger row as the database takes it: clamped, typed, in the order of the table's columns."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from proxy.domain.budgets import MOST_PICODOLLARS, Charge
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.storable import storable
from proxy.domain.values import CostAmount, ModelName, TokenCount, name_or_unknown
from proxy.infrastructure.persistence.tables import MONEY_DIGITS, NAME_LENGTH, WORD_LENGTH

_logger = logging.getLogger(__name__)
_MONEY_STEP = Decimal(1).scaleb(-MONEY_DIGITS[1])
_MAX_MONEY = Decimal(10) ** (MONEY_DIGITS[0] - MONEY_DIGITS[1]) - _MONEY_STEP
_MAX_INT, _MAX_SMALL_INT, _MAX_BIG_INT = 2**31 - 1, 2**15 - 1, 2**63 - 1
_ID_LENGTH = 128
_SUBJECT_LENGTH = 64


class LedgerRow(msgspec.Struct, frozen=True, array_like=True):
    """One row of `request_logs`, and its charges, which are booked with it but are no column.

    Both engines take every value that `ledger_row` gives. Spools hold rows as arrays: what is added goes to the end,
    with a default.
    """

    id: UUID
    request_id: str
    timestamp: datetime
    requested_model: str | None
    model_used: str
    model_provider: str
    provider_name: str
    status: str
    http_status: int | None
    error_type: str | None
    stream: bool
    attempts: int
    was_fallback: bool
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str
    estimated_cost_usd: Decimal | None
    reported_cost_usd: Decimal | None
    cost_source: str
    response_time_ms: int
    time_to_first_byte_ms: int | None
    generation_id: str | None
    key_id: UUID | None = None
    team_id: UUID | None = None
    organisation_id: UUID | None = None
    end_user: str | None = None
    charges: tuple[Charge, ...] = ()
    service_tier: str | None = None


_CHARGES = LedgerRow.__struct_fields__.index("charges")
COLUMNS = LedgerRow.__struct_fields__[:_CHARGES] + LedgerRow.__struct_fields__[_CHARGES + 1 :]


def column_values(row: LedgerRow) -> tuple[object, ...]:
    """What the row has in each of COLUMNS, in their order."""
    values = msgspec.structs.astuple(row)
    return values[:_CHARGES] + values[_CHARGES + 1 :]


def ledger_row(row: RequestLog) -> LedgerRow:
    """The row clamped to the columns' ranges, without what a database refuses (NUL bytes, lone surrogates).

    A name that is blank without them is `unknown`.
    """
    name, requested, milliseconds = row.model.value, row.requested_model, row.time_to_first_byte_ms
    model, provider = _model_columns(name)
    estimated, reported = row.estimated_cost, row.reported_cost
    cached, reasoning = row.cached_tokens, row.reasoning_tokens
    return LedgerRow(  # by place, in the order of the fields: every request's row comes through here
        row.id,
        _text(row.request_id, _ID_LENGTH),
        row.timestamp,
        model if requested == name else None if requested is None else _name(requested, NAME_LENGTH),
        model,
        provider,
        _name(row.provider_name, WORD_LENGTH),
        str(row.status),
        row.http_status,
        None if row.error_type is None else _text(row.error_type, WORD_LENGTH),
        row.stream,
        min(row.attempts, _MAX_SMALL_INT),
        row.was_fallback,
        min(row.input_tokens.value, _MAX_BIG_INT),
        min(row.output_tokens.value, _MAX_BIG_INT),
        None if cached is None else _whole(cached),
        None if reasoning is None else _whole(reasoning),
        str(row.usage_source),
        None if estimated is None else _money(estimated),
        None if reported is None else _money(reported),
        str(row.cost_source),
        min(row.response_time_ms, _MAX_INT),
        None if milliseconds is None else min(milliseconds, _MAX_INT),
        None if row.generation_id is None else _text(row.generation_id, _ID_LENGTH),
        row.key_id,
        row.team_id,
        row.organisation_id,
        None if row.end_user is None else _text(row.end_user, NAME_LENGTH),
        row_charges(row.charges) if row.charges else (),
        None if row.service_tier is None else _text(row.service_tier, WORD_LENGTH),
    )


@lru_cache(maxsize=1024)
def _model_columns(name: str) -> tuple[str, str]:
    """`model_used` and `model_provider`. Names come again and again."""
    return _name(name, NAME_LENGTH), _name(ModelName(name).provider, NAME_LENGTH)


def row_charges(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """Charges as they are spooled and booked: none above what a budget can have, long subjects known by their hash."""
    for each in charges:
        if each.subject_id or each.picodollars > MOST_PICODOLLARS:
            return tuple(map(_fitted, charges))
    return tuple(charges)


def _fitted(charge: Charge) -> Charge:
    amount = min(charge.picodollars, MOST_PICODOLLARS)
    return charge._replace(subject_id=budget_subject(charge.subject_id), picodollars=amount)


def budget_subject(subject_id: str) -> str:
    """A subject of a budget for EACH of a scope, as short as a record of the spool needs it, and without oddities."""
    if not subject_id or (len(subject_id) <= _SUBJECT_LENGTH and subject_id.isascii() and subject_id.isprintable()):
        return subject_id
    return hashlib.sha256(subject_id.encode(errors="surrogatepass")).hexdigest()


def _text(value: str, length: int) -> str:
    if value.isascii() and len(value) <= length and "\x00" not in value:
        return value
    return storable(value)[:length]


def _name(value: str, length: int) -> str:
    return name_or_unknown(_text(value, length))


def _whole(value: int) -> int:
    return max(-_MAX_BIG_INT, min(value, _MAX_BIG_INT))


def _money(cost: CostAmount) -> Decimal:
    usd = cost.usd
    return (usd if usd < _MAX_MONEY else _MAX_MONEY).quantize(_MONEY_STEP)


def readable_rows(found: Iterable[Mapping[str, Any]]) -> list[RequestLog]:
    """The rows of a query, without those that cannot be read: of them the log is told, and the others are shown."""
    rows = []
    for columns in found:
        try:
            rows.append(_request_log(columns))
        except ValueError as problem:
            _logger.warning("row not read", extra={"row": str(columns["id"]), "reason": str(problem)})
    return rows


def _request_log(columns: Mapping[str, Any]) -> RequestLog:
    """The row as the domain knows it; blank names, which are there from before, are read as they are written now."""
    return RequestLog(
        id=columns["id"],
        request_id=columns["request_id"],
        timestamp=columns["timestamp"].astimezone(UTC),
        requested_model=columns["requested_model"],
        model=ModelName(name_or_unknown(columns["model_used"])),
        provider_name=name_or_unknown(columns["provider_name"]),
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
        key_id=_uuid(columns["key_id"]),
        team_id=_uuid(columns["team_id"]),
        organisation_id=_uuid(columns["organisation_id"]),
        end_user=columns["end_user"],
        service_tier=columns["service_tier"],
    )


def _uuid(value: UUID | None) -> UUID | None:
    """asyncpg's UUIDs are of a class of its own."""
    return None if value is None else UUID(str(value))


def _cost(value: Decimal | None) -> CostAmount | None:
    """SQLite gives back a float's digits; the column has 12 decimals."""
    return None if value is None else CostAmount(Decimal(value).quantize(_MONEY_STEP))
