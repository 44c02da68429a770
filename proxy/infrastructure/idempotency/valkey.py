"""A registry in a Valkey (or Redis) that several gateways share.

A key is a string that begins as a record: who has it has a lease, which is prolonged while the request runs. Answers go
when their time is over. How many bytes of them there are is counted by the minute: when there are too many, or one is
too large, the key stays known and the answer is not kept, so that what others keep in Valkey is not in danger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

from redis.exceptions import RedisError

from proxy.application.idempotency import KEPT_SECONDS
from proxy.infrastructure.idempotency.records import (
    HEAD_BYTES,
    OWNER_BYTES,
    Answer,
    Claim,
    Record,
    State,
    packed_answer,
    packed_head,
    unpacked,
)
from proxy.infrastructure.idempotency.registry import RegistryLost
from proxy.infrastructure.valkey import valkey_client

_PREFIX: Final = "llmgateway:idempotency:1:"
_HELD_BYTES: Final = "llmgateway:idempotency:held"
_LEASE_SECONDS: Final = 30.0
_RENEWALS: Final = 3  # in a lease
_FAILED_SECONDS: Final = 5.0  # longer than anybody pauses who waits for it
_PATIENCE_SECONDS: Final = 5.0  # with what no request waits for, and with answers that are known to be there

# KEYS: the key. ARGV: a record's head, the lease (ms), the token that is waited for. Answers the head of who has it.
_CLAIM: Final = f"""
local head = redis.call('GETRANGE', KEYS[1], 0, {HEAD_BYTES - 1})
if head == '' or (string.sub(head, 1, 1) == 'F' and string.sub(head, 2, {OWNER_BYTES}) ~= ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return false
end
return head
"""

# KEYS: the key, what is held. ARGV: state and token of who has it, head, answer, time to live (ms), most bytes in all,
# and of how many minutes.
_FINISH: Final = f"""
local owner = redis.call('GETRANGE', KEYS[1], 0, {OWNER_BYTES - 1})
if owner ~= '' and owner ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
local minute = math.floor(now[1] / 60)
local sum, answer = #ARGV[3], ARGV[3]
local held = redis.call('HGETALL', KEYS[2])
for i = 1, #held, 2 do
  if tonumber(held[i]) < minute - tonumber(ARGV[6]) then
    redis.call('HDEL', KEYS[2], held[i])
  else
    sum = sum + tonumber(held[i + 1])
  end
end
if sum > tonumber(ARGV[5]) then answer = '' end
if answer ~= '' then
  redis.call('HINCRBY', KEYS[2], minute, #answer)
  redis.call('PEXPIRE', KEYS[2], tonumber(ARGV[6]) * 120000)
end
redis.call('SET', KEYS[1], ARGV[2] .. answer, 'PX', ARGV[4])
return 1
"""

# KEYS: the key. ARGV: state and token of who has it.
_GIVE_BACK: Final = f"""
if redis.call('GETRANGE', KEYS[1], 0, {OWNER_BYTES - 1}) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""

# KEYS: the key. ARGV: state and token of who has it, its head, the lease (ms).
_RENEW: Final = f"""
local owner = redis.call('GETRANGE', KEYS[1], 0, {OWNER_BYTES - 1})
if owner == '' or owner == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Room:
    """What answers may take in Valkey: each, and all of them. A key alone takes some 250 bytes besides."""

    answer_bytes: int = 1024 * 1024
    total_bytes: int = 64 * 1024 * 1024


_ROOM: Final = Room()


class ValkeyRegistry:
    """KeyRegistry in Valkey. A request waits no longer than the deadline to hear whether its key is free."""

    mode = "valkey"
    trouble = "Valkey does not answer: idempotency keys are each process's own"

    def __init__(
        self, url: str, deadline_seconds: float, room: Room = _ROOM, lease_seconds: float = _LEASE_SECONDS
    ) -> None:
        self._client = valkey_client(url, deadline_seconds)
        self._deadline_seconds = deadline_seconds
        self._room = room
        self._lease_ms = round(lease_seconds * 1000)
        self._renew_seconds = lease_seconds / _RENEWALS
        self._renewed = time.monotonic()
        self._held: dict[bytes, tuple[str, Claim]] = {}  # by token
        self._renewing = asyncio.Lock()
        self._claim = self._client.register_script(_CLAIM)
        self._finish = self._client.register_script(_FINISH)
        self._give_back = self._client.register_script(_GIVE_BACK)
        self._renew = self._client.register_script(_RENEW)

    async def claim(self, name: str, claim: Claim, awaited: bytes | None) -> Record | None:
        head = packed_head(Record(State.RUNNING, claim))
        self._held[claim.token] = name, claim  # who is only slow has it for us, after we have stopped waiting
        async with _within(self._deadline_seconds):
            found = cast("bytes | None", await self._claim([_PREFIX + name], [head, self._lease_ms, awaited or b""]))
        if found is None:
            return None
        self._held.pop(claim.token, None)
        record = unpacked(found)
        if record is None or record.state is State.RUNNING:
            return record
        async with _within(_PATIENCE_SECONDS, is_taken=True):
            whole = cast("bytes | None", await self._client.get(_PREFIX + name))
        return unpacked(whole or b"") or record

    async def finish(self, name: str, claim: Claim, state: State, answer: Answer | None) -> None:
        async with self._renewing:  # a lease that is just being prolonged must not come after this
            self._held.pop(claim.token, None)
        owner = _owner(claim)
        async with _within(_PATIENCE_SECONDS):
            if state is State.RUNNING:
                await self._give_back([_PREFIX + name], [owner])
                return
            is_kept = answer is not None and len(answer.body) <= self._room.answer_bytes
            data = packed_answer(answer if is_kept else None)
            seconds = KEPT_SECONDS if state is State.DONE else _FAILED_SECONDS
            head = packed_head(Record(state, claim, expires=time.time() + seconds))
            minutes = round(KEPT_SECONDS / 60)
            numbers = (round(seconds * 1000), self._room.total_bytes, minutes)
            await self._finish([_PREFIX + name, _HELD_BYTES], [owner, head, data, *numbers])

    async def keep(self) -> None:
        if time.monotonic() - self._renewed < self._renew_seconds:
            return
        self._renewed = time.monotonic()
        for token, (name, claim) in list(self._held.items()):
            async with self._renewing, _within(_PATIENCE_SECONDS):
                if token in self._held:
                    head = packed_head(Record(State.RUNNING, claim))
                    await self._renew([_PREFIX + name], [_owner(claim), head, self._lease_ms])

    async def probe(self) -> None:
        """Claims a key that is nobody's name: who takes no writes is of no use."""
        async with _within(self._deadline_seconds):
            await self._claim([_PREFIX + "probe"], [b"probe", round(_PATIENCE_SECONDS * 1000), b""])
        self._renewed = 0.0  # at once, with the next `keep`

    async def close(self) -> None:
        await self._client.aclose()


def _owner(claim: Claim) -> bytes:
    return State.RUNNING.value + claim.token


@asynccontextmanager
async def _within(seconds: float, *, is_taken: bool = False) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError, TimeoutError) as problem:
        raise RegistryLost(type(problem).__name__, is_taken=is_taken) from problem
