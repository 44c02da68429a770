"""What is kept of a key where several processes can read it: who has it, for which request, and what came of it.

A record is a head of fixed size (state, token, fingerprint, end of its time) and the answer, if there is one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, cast

import msgspec

from proxy.application.idempotency import AnswerHead

_HEAD: Final = struct.Struct(">c16s32sd")
HEAD_BYTES: Final = _HEAD.size
OWNER_BYTES: Final = 1 + 16  # state and token, which a record begins with


class State(Enum):
    """`FAILED` is whole but not to be sent again: only for those who have waited for it."""

    RUNNING = b"R"
    DONE = b"D"
    FAILED = b"F"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is whole."""

    head: AnswerHead
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """One request's hold on a key. `token` tells it from all others."""

    token: bytes
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """`answer` is None while the request runs, and when the answer could not be kept. `expires` in seconds of Unix."""

    state: State
    claim: Claim
    answer: Answer | None = None
    expires: float = 0.0


def packed_head(record: Record) -> bytes:
    return _HEAD.pack(record.state.value, record.claim.token, record.claim.fingerprint, record.expires)


def packed_answer(answer: Answer | None) -> bytes:
    if answer is None:
        return b""
    head = answer.head
    return msgspec.msgpack.encode((head.status, dict(head.headers), head.is_stream, head.error_type, answer.body))


def unpacked(data: bytes) -> Record | None:
    """None if it is no record. An answer that cannot be read is one that was not kept."""
    try:
        state, token, fingerprint, expires = _HEAD.unpack_from(data)
        return Record(State(state), Claim(token, fingerprint), _answer(data[HEAD_BYTES:]), expires)
    except (struct.error, ValueError):
        return None


_Packed = tuple[int, dict[str, str], bool, str | None, bytes]


def _answer(data: bytes) -> Answer | None:
    if not data:
        return None
    try:
        status, headers, is_stream, error_type, body = msgspec.msgpack.decode(data, type=_Packed)
    except msgspec.MsgspecError:
        return None
    return Answer(AnswerHead(status, cast("Mapping[str, str]", headers), is_stream, error_type), body)
