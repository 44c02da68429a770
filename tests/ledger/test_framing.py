"""Records: whole ones come back, damage is found, and the intact rest survives it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.infrastructure.ledger.framing import HEADER_BYTES, Damage, Intact, framed, payload_at, scan

PAYLOADS = st.lists(st.binary(max_size=200), min_size=1, max_size=12)


def intact(text: bytes) -> list[bytes]:
    return [found.payload for found in scan(text) if isinstance(found, Intact)]


def damages(text: bytes) -> list[Damage]:
    return [found for found in scan(text) if isinstance(found, Damage)]


@given(PAYLOADS, st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_what_was_written_is_read_and_free_space_is_no_damage(payloads: list[bytes], free: int) -> None:
    text = b"".join(map(framed, payloads)) + bytes(free)
    assert intact(text) == payloads
    assert damages(text) == []


@given(PAYLOADS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_torn_tail_costs_only_the_record_that_it_tears(payloads: list[bytes], data: st.DataObject) -> None:
    """The process died while it copied its last record: any part of it may be there."""
    whole = b"".join(map(framed, payloads[:-1]))
    last = framed(payloads[-1])
    kept = data.draw(st.integers(0, len(last) - 1))
    text = whole + last[:kept] + bytes(500)
    if kept < len(last.rstrip(b"\0")):
        assert intact(text) == payloads[:-1]
    assert (damages(text) != []) == (text.rstrip(b"\0") != b"".join(map(framed, intact(text))).rstrip(b"\0"))


@given(PAYLOADS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_costs_one_record_and_is_reported(payloads: list[bytes], data: st.DataObject) -> None:
    records = [framed(payload) for payload in payloads]
    victim = data.draw(st.integers(0, len(records) - 1))
    bit = data.draw(st.integers(0, len(records[victim]) * 8 - 1))
    broken = bytearray(records[victim])
    broken[bit // 8] ^= 1 << (bit % 8)
    text = b"".join([*records[:victim], bytes(broken), *records[victim + 1 :]]) + bytes(64)
    found = intact(text)
    assert [payload for payload in found if payload in payloads] == found
    others = payloads[:victim] + payloads[victim + 1 :]
    assert found == others
    (damage,) = damages(text)
    assert damage.start == sum(len(record) for record in records[:victim])


def test_a_record_may_hold_what_looks_like_another() -> None:
    inner = framed(b"inner")
    text = framed(b"before " + inner + b" after") + framed(b"next")
    assert intact(text) == [b"before " + inner + b" after", b"next"]


@pytest.mark.parametrize("length", [0, 1, 2**16 - 1])
def test_payloads_of_any_length_up_to_the_limit(length: int) -> None:
    text = framed(b"x" * length)
    assert len(text) == HEADER_BYTES + length
    assert payload_at(text, 0) == b"x" * length
