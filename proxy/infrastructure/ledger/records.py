"""What the spool records: msgpack arrays behind one byte that tells intents from outcomes."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from proxy.domain.request_log import CostSource, RequestIntent, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.rows import LedgerRow, ledger_row

_INTENT, _OUTCOME = b"I", b"O"


class SpooledIntent(msgspec.Struct, frozen=True, array_like=True):
    """A request that was about to be sent upstream."""

    id: UUID
    timestamp: datetime
    request_id: str
    requested_model: str | None
    model: str
    provider_name: str
    stream: bool


class Unreadable(Exception):
    """An intact record that this version cannot read."""


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_intents = msgspec.msgpack.Decoder(SpooledIntent)
_rows = msgspec.msgpack.Decoder(LedgerRow)


def intent_payload(intent: RequestIntent) -> bytes:
    request_id = intent.request_id
    requested = intent.requested_model
    spooled = SpooledIntent(
        intent.id,
        intent.timestamp,
        request_id,
        None if requested is None else _clean(requested),
        _clean(intent.model),
        intent.provider_name,
        intent.stream,
    )
    return _INTENT + _encoder.encode(spooled)


def outcome_payload(row: LedgerRow) -> bytes:
    return _OUTCOME + _encoder.encode(row)


def read(payload: bytes) -> SpooledIntent | LedgerRow:
    """The intent or the outcome in a record. Raises Unreadable."""
    decoder: msgspec.msgpack.Decoder[SpooledIntent] | msgspec.msgpack.Decoder[LedgerRow]
    decoder = _intents if payload[:1] == _INTENT else _rows
    try:
        return decoder.decode(memoryview(payload)[1:])
    except (msgspec.DecodeError, ValueError) as problem:
        raise Unreadable(str(problem)) from problem


def is_outcome(payload: bytes) -> bool:
    return payload[:1] == _OUTCOME


def interrupted(intent: SpooledIntent) -> LedgerRow:
    """The row of a request whose process died before it was settled: what it cost is not known."""
    return ledger_row(
        RequestLog(
            id=intent.id,
            timestamp=intent.timestamp,
            request_id=intent.request_id,
            requested_model=intent.requested_model,
            model=ModelName(intent.model),
            provider_name=intent.provider_name,
            stream=intent.stream,
            attempts=1,
            status=RequestStatus.INTERRUPTED,
            error_type="process_died",
            usage_source=UsageSource.NONE,
            cost_source=CostSource.UNKNOWN,
        )
    )


def _clean(text: str) -> str:
    """Within a record's size, and without what msgpack cannot hold."""
    return text[:255].encode(errors="replace").decode()
