"""What the spool's records hold, also those that earlier versions have written."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from proxy.domain.budgets import Charge
from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.ledger.records import (
    SpooledIntent,
    intent_payload,
    interrupted,
    outcome_payload,
    read,
)
from proxy.infrastructure.persistence.rows import COLUMNS, LedgerRow, column_values, ledger_row

KEY, TEAM, ORGANISATION = (UUID(int=number) for number in (1, 2, 3))
ROW = RequestLog(
    model=ModelName("m/x"),
    provider_name="p",
    key_id=KEY,
    team_id=TEAM,
    organisation_id=ORGANISATION,
    end_user="zoë",
    service_tier="flex",
    charges=(Charge(UUID(int=4), "", datetime(2026, 3, 1, tzinfo=UTC), 5),),
)
BEFORE_KEYS = {"I": 7, "O": 24}  # how many columns there were
BEFORE_TIERS = 29


def test_whom_a_request_is_for_is_in_its_outcome() -> None:
    assert read(outcome_payload(ledger_row(ROW))) == ledger_row(ROW)


def test_outcomes_of_before_there_were_service_tiers_are_read_with_their_charges() -> None:
    members = msgspec.msgpack.decode(outcome_payload(ledger_row(ROW))[1:])
    record = read(b"O" + msgspec.msgpack.encode(members[:BEFORE_TIERS]))
    assert record == msgspec.structs.replace(ledger_row(ROW), service_tier=None)
    assert isinstance(record, LedgerRow)
    assert len(record.charges) == 1


def test_whom_a_request_is_for_is_kept_when_its_process_dies() -> None:
    intent = RequestIntent(
        UUID(int=9), datetime.now(UTC), "r", "m", "m", "p", True, KEY, TEAM, ORGANISATION, "\ud800" + "u" * 500
    )
    spooled = read(intent_payload(intent))
    assert isinstance(spooled, SpooledIntent)
    row = interrupted(spooled)
    assert (row.key_id, row.team_id, row.organisation_id) == (KEY, TEAM, ORGANISATION)
    assert row.end_user == "?" + "u" * 254


def test_a_request_whose_name_is_blank_where_it_is_cut_is_booked_as_any_other() -> None:
    for name in ("\x00", " " * 255 + "x"):
        spooled = read(intent_payload(RequestIntent(UUID(int=9), datetime.now(UTC), "r", name, name, "p", False)))
        assert isinstance(spooled, SpooledIntent)
        assert interrupted(spooled).model_used == "unknown"


class RowOfALaterVersion(LedgerRow, frozen=True, array_like=True):
    """With one more column, at the end: spools of this version are read by that one."""

    more: str | None = None


def test_a_column_that_comes_behind_the_charges_is_booked_as_the_others_are() -> None:
    charge = Charge(UUID(int=4), "", ROW.timestamp, 5)
    row = msgspec.structs.replace(ledger_row(ROW), charges=(charge,))
    later = (*msgspec.structs.astuple(row), "flex")
    assert column_values(row) == tuple(getattr(row, name) for name in COLUMNS)
    assert "charges" not in COLUMNS
    assert column_values(RowOfALaterVersion(*later)) == (*column_values(row), "flex")


def test_records_of_before_there_were_keys_are_read() -> None:
    intent = intent_payload(RequestIntent(UUID(int=9), datetime.now(UTC), "r", "m", "m", "p", stream=True))
    for payload in (intent, outcome_payload(ledger_row(ROW))):
        kind = payload[:1]
        columns = msgspec.msgpack.decode(payload[1:])[: BEFORE_KEYS[kind.decode()]]
        record = read(kind + msgspec.msgpack.encode(columns))
        assert isinstance(record, SpooledIntent | LedgerRow)
        assert (record.key_id, record.team_id, record.organisation_id, record.end_user) == (None,) * 4
        assert record.id == (UUID(int=9) if kind == b"I" else ROW.id)
