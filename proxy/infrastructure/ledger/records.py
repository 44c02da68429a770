"""What the spool records: msgpack arrays behind one byte that tells intents, generations and outcomes apart."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from proxy.domain.budgets import Charge
from proxy.domain.request_log import CostSource, RequestIntent, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import ModelName, name_or_unknown
from proxy.infrastructure.persistence.rows import LedgerRow, ledger_row, row_charges

_INTENT, _GENERATION, _OUTCOME = b"I", b"G", b"O"
_GENERATION_CHARACTERS, _CHARACTERS = 128, 255


class SpooledIntent(msgspec.Struct, frozen=True, array_like=True):
    """A request that was about to be sent upstream. As in LedgerRow, what is new comes last and has a default."""

    id: UUID
    timestamp: datetime
    request_id: str
    requested_model: str | None
    model: str
    provider_name: str
    stream: bool
    key_id: UUID | None = None
    team_id: UUID | None = None
    organisation_id: UUID | None = None
    end_user: str | None = None
    holds: tuple[Charge, ...] = ()


class SpooledGeneration(msgspec.Struct, frozen=True, array_like=True):
    """The upstream's name for what it generates for a request: who knows it can ask later what was billed."""

    request: UUID
    generation_id: str


Record = SpooledIntent | SpooledGeneration | LedgerRow


class Unreadable(Exception):
    """An intact record that this version cannot read."""


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoders: dict[bytes, msgspec.msgpack.Decoder[Any]] = {
    _INTENT: msgspec.msgpack.Decoder(SpooledIntent),
    _GENERATION: msgspec.msgpack.Decoder(SpooledGeneration),
    _OUTCOME: msgspec.msgpack.Decoder(LedgerRow),
}


def intent_payload(intent: RequestIntent) -> bytes:
    requested, model = intent.requested_model, _clean(intent.model)
    spooled = SpooledIntent(
        intent.id,
        intent.timestamp,
        intent.request_id,
        model if requested == intent.model else None if requested is None else _clean(requested),
        model,
        intent.provider_name,
        intent.stream,
        intent.key_id,
        intent.team_id,
        intent.organisation_id,
        None if intent.end_user is None else _clean(intent.end_user),
        row_charges(intent.holds) if intent.holds else (),
    )
    return _INTENT + _encoder.encode(spooled)


def generation_payload(request: UUID, generation_id: str) -> bytes:
    return _GENERATION + _encoder.encode(SpooledGeneration(request, _clean(generation_id)[:_GENERATION_CHARACTERS]))


def outcome_payload(row: LedgerRow) -> bytes:
    return _OUTCOME + _encoder.encode(row)


def read(payload: bytes) -> Record:
    """What a record holds. Raises Unreadable."""
    decoder = _decoders.get(payload[:1])
    if decoder is None:
        raise Unreadable("a kind of record that this version does not know")
    try:
        record: Record = decoder.decode(memoryview(payload)[1:])
    except (msgspec.DecodeError, ValueError) as problem:
        raise Unreadable(str(problem)) from problem
    return record


def is_outcome(payload: bytes) -> bool:
    return payload[:1] == _OUTCOME


def interrupted(intent: SpooledIntent, generation_id: str | None = None) -> LedgerRow:
    """The row of a request whose process died before it was settled: what it cost is not known.

    With a generation id the provider can be asked. Budgets are charged what was set aside.
    """
    row = ledger_row(
        RequestLog(
            id=intent.id,
            timestamp=intent.timestamp,
            request_id=intent.request_id,
            requested_model=intent.requested_model,
            model=ModelName(name_or_unknown(intent.model)),
            provider_name=intent.provider_name,
            stream=intent.stream,
            attempts=1,
            status=RequestStatus.INTERRUPTED,
            error_type="process_died",
            usage_source=UsageSource.NONE,
            cost_source=CostSource.UNKNOWN,
            generation_id=generation_id,
            key_id=intent.key_id,
            team_id=intent.team_id,
            organisation_id=intent.organisation_id,
            end_user=intent.end_user,
        )
    )
    return msgspec.structs.replace(row, charges=intent.holds)


def _clean(text: str) -> str:
    """Within a record's size, and without what msgpack cannot hold."""
    return text if text.isascii() and len(text) <= _CHARACTERS else text[:_CHARACTERS].encode(errors="replace").decode()
