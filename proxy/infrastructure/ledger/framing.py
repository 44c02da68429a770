"""Records in a byte string, written so that damage is found and survived.

A record is a header of 8 bytes and a payload: magic (2 bytes, 0xA5 0x5A), length of the payload (2 bytes), CRC-32 of
length and payload (4 bytes), little-endian. Unwritten space is zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("<2sHI")
_LENGTH = struct.Struct("<H")
_MAGIC = b"\xa5\x5a"
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from `start` to `end` that hold no intact record: a torn tail, or flipped bits."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Intact:
    """A record's payload, and the place where the record ends."""

    payload: bytes
    end: int


def framed(payload: bytes) -> bytes:
    """The record for a payload of at most 65,535 bytes: its length must fit into two. Raises struct.error."""
    checksum = zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))
    return _HEADER.pack(_MAGIC, len(payload), checksum) + payload


def payload_at(text: bytes, place: int) -> bytes | None:
    """The payload of the intact record that begins there; None if there is none."""
    if place + HEADER_BYTES > len(text):
        return None
    magic, length, checksum = _HEADER.unpack_from(text, place)
    if magic != _MAGIC:
        return None
    payload = text[place + HEADER_BYTES : place + HEADER_BYTES + length]
    if len(payload) != length or zlib.crc32(payload, zlib.crc32(_LENGTH.pack(length))) != checksum:
        return None
    return payload


def scan(text: bytes) -> Iterator[Intact | Damage]:
    """The records in order, and each stretch of damage between, before or after them."""
    place = 0
    while place < len(text):
        payload = payload_at(text, place)
        if payload is not None:
            place += HEADER_BYTES + len(payload)
            yield Intact(payload, place)
            continue
        following = _next_record(text, place)
        damaged_to = len(text.rstrip(b"\0")) if following is None else following
        if damaged_to > place:
            yield Damage(place, damaged_to)
        if following is None:
            return
        place = following


def _next_record(text: bytes, place: int) -> int | None:
    """Where the next intact record begins after `place`."""
    found = text.find(_MAGIC, place + 1)
    while found >= 0:
        if payload_at(text, found) is not None:
            return found
        found = text.find(_MAGIC, found + 1)
    return None
