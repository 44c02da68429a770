"""Limits in a Valkey (or Redis) that several gateways share: one script, so one round trip and nothing in between.

A window is a hash of when it began, what was used before and in it, by the server's clock. Places are sorted sets of
those who have one and until when; who dies is forgotten when his time is up. What is told afterwards (what was really
used, which places are free again) goes through a bounded queue and must not be waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from proxy.infrastructure.limits.shared import Answer, CountsLost
from proxy.infrastructure.limits.wanted import Place, Wanted
from proxy.infrastructure.limits.windows import WINDOW_SECONDS, Reading
from proxy.infrastructure.valkey import refusal, valkey_client

_PREFIX: Final = "llmgateway:limits:"
_LEASE_SECONDS: Final = 30.0
_MOST_WAITING: Final = 20_000
_BATCH: Final = 200
_TELLING_SECONDS: Final = 1.0  # nobody waits for it
_UNREACHABLE: Final = (RedisError, OSError, TimeoutError)
_TOO_LATE: Final = (TimeoutError, RedisTimeout)

# KEYS: windows, then places. ARGV: window's length (ms), number of windows, lease (ms), member, then limit and cost of
# each window, then limit of each place. Answers: what has no room (indices from 0), and of each window four numbers.
_ENTER: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + now[2] / 1000
local length, windows, lease, member = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local full, states = {}, {}
for i = 1, #KEYS do
  if i <= windows then
    local limit, cost = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
    local kept = redis.call('HMGET', KEYS[i], 's', 'p', 'c')
    local started, previous, current = tonumber(kept[1]), tonumber(kept[2]), tonumber(kept[3])
    if not started or now - started >= 2 * length then
      started, previous, current = now, 0, 0
    elseif now - started >= length then
      started, previous, current = started + length, current, 0
    end
    local used = previous * math.max(0, 1 - (now - started) / length) + current
    if used + cost > limit + 0.000001 then full[#full + 1] = i - 1 end
    states[i] = {started, previous, current, cost}
  else
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
    local limit = tonumber(ARGV[4 + windows + i])
    if redis.call('ZCARD', KEYS[i]) >= limit then full[#full + 1] = i - 1 end
  end
end
local told = {}
for i = 1, windows do
  local s = states[i]
  if #full == 0 then
    s[3] = s[3] + s[4]
    redis.call('HSET', KEYS[i], 's', string.format('%.3f', s[1]), 'p', s[2], 'c', s[3])
    redis.call('PEXPIRE', KEYS[i], math.ceil(2 * length))
  end
  for _, number in ipairs({s[1], s[2], s[3], now - s[1]}) do told[#told + 1] = string.format('%.3f', number) end
end
if #full == 0 then
  for i = windows + 1, #KEYS do
    redis.call('ZADD', KEYS[i], now + lease, member)
    redis.call('PEXPIRE', KEYS[i], lease)
  end
end
return {full, told}
"""

# KEYS: the window. ARGV: its length (ms), when the window began that is corrected, and by how much.
_CORRECT: Final = """
local kept = redis.call('HMGET', KEYS[1], 's', 'p', 'c')
if not kept[1] then return 0 end
local began, more = tonumber(ARGV[2]), tonumber(ARGV[3])
local ahead = tonumber(kept[1]) - began
if math.abs(ahead) < 1 then
  redis.call('HSET', KEYS[1], 'c', math.max(0, tonumber(kept[3]) + more))
elseif ahead > 0 and ahead < 1.5 * tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'p', math.max(0, tonumber(kept[2]) + more))
end
return 1
"""

# KEYS: the window. ARGV: its length (ms), and how much was used of it without asking.
_COUNT: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + now[2] / 1000
local length, more = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[1], 's', 'p', 'c')
local started, previous, current = tonumber(kept[1]), tonumber(kept[2]), tonumber(kept[3])
if not started or now - started >= 2 * length then
  started, previous, current = now, 0, 0
elseif now - started >= length then
  started, previous, current = started + length, current, 0
end
redis.call('HSET', KEYS[1], 's', string.format('%.3f', started), 'p', previous, 'c', current + more)
redis.call('PEXPIRE', KEYS[1], math.ceil(2 * length))
return 1
"""

# KEYS: places. ARGV: lease (ms), member.
_RENEW: Final = """
local now = redis.call('TIME')
local till = now[1] * 1000 + now[2] / 1000 + tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, till, ARGV[2])
  redis.call('PEXPIRE', key, ARGV[1])
end
return 1
"""


@dataclass(frozen=True, slots=True)
class _Correction:
    key: str
    started: float
    more: float


@dataclass(frozen=True, slots=True)
class _Use:
    key: str
    used: float


@dataclass(frozen=True, slots=True)
class _Departure:
    keys: tuple[str, ...]
    member: str


class ValkeyCounts:
    """SharedCounts in Valkey, which has to answer a request before the deadline."""

    def __init__(
        self,
        url: str,
        deadline_seconds: float,
        length_seconds: float = WINDOW_SECONDS,
        lease_seconds: float = _LEASE_SECONDS,
    ) -> None:
        self._client = valkey_client(url, deadline_seconds, decode_responses=True)
        self._deadline_seconds = deadline_seconds
        self._length = length_seconds
        self._lease_ms = round(lease_seconds * 1000)
        self._enter = self._client.register_script(_ENTER)
        self._correct = self._client.register_script(_CORRECT)
        self._count = self._client.register_script(_COUNT)
        self._renew = self._client.register_script(_RENEW)
        self._told: deque[_Correction | _Use | _Departure] = deque(maxlen=_MOST_WAITING)
        self._held: dict[str, tuple[str, ...]] = {}

    @property
    def waiting(self) -> int:
        return len(self._told)

    async def enter(self, wanted: Wanted, member: str) -> Answer:
        keys = [_PREFIX + take.key for take in wanted.takes] + [_PREFIX + place.key for place in wanted.places]
        numbers: list[str | int] = [round(self._length * 1000), len(wanted.takes), self._lease_ms, member]
        for take in wanted.takes:
            numbers += (take.limit, take.cost)
        numbers += (place.limit for place in wanted.places)
        async with _within(self._deadline_seconds):
            full, told = cast("tuple[list[int], list[str]]", await self._enter(keys, numbers))
        takes = len(wanted.takes)
        values = [float(number) for number in told]
        readings = []
        for place, take in enumerate(wanted.takes):
            started, previous, current, elapsed_ms = values[4 * place : 4 * place + 4]
            readings.append(Reading(take.limit, started, previous, current, elapsed_ms / 1000, self._length))
        return Answer(
            [index for index in full if index < takes],
            [wanted.places[index - takes] for index in full if index >= takes],
            readings,
        )

    def hold(self, member: str, places: Sequence[Place]) -> None:
        if places:
            self._held[member] = tuple(_PREFIX + place.key for place in places)

    def leave(self, member: str, places: Sequence[Place]) -> None:
        if places:
            self._held.pop(member, None)
            self._told.append(_Departure(tuple(_PREFIX + place.key for place in places), member))

    def correct(self, key: str, started: float, more: float) -> None:
        self._told.append(_Correction(_PREFIX + key, started, more))

    def count(self, key: str, used: float) -> None:
        self._told.append(_Use(_PREFIX + key, used))

    async def probe(self, most_seconds: float | None = None) -> None:
        """Asks as requests do, for nothing: who answers but takes no writes (a replica, a full server, one that grants
        too little) is of no use. A full one takes those that follow a removal, as those of places do."""
        window, place = _PREFIX + "probe:w", _PREFIX + "probe:p"
        numbers = (round(self._length * 1000), 1, self._lease_ms, "probe", 1, 0)
        for keys, limits in (((window,), numbers), ((window, place), (*numbers, 2))):
            async with _within(most_seconds or self._deadline_seconds):
                await self._enter(keys, limits)

    async def tell(self) -> None:
        while self._told:
            batch = [self._told.popleft() for _ in range(min(_BATCH, len(self._told)))]
            try:
                await self._send(batch)
            except BaseException:
                room = _MOST_WAITING - len(self._told)
                self._told.extendleft(reversed(batch[:room]))
                raise

    async def _send(self, batch: Sequence[_Correction | _Use | _Departure]) -> None:
        async with _within(_TELLING_SECONDS), self._client.pipeline(transaction=False) as pipeline:
            for item in batch:
                if isinstance(item, _Correction):
                    numbers = (round(self._length * 1000), item.started, item.more)
                    await self._correct([item.key], numbers, client=pipeline)
                elif isinstance(item, _Use):
                    await self._count([item.key], (round(self._length * 1000), item.used), client=pipeline)
                else:
                    for key in item.keys:
                        _queued = pipeline.zrem(key, item.member)  # sent by execute
            await pipeline.execute()

    async def renew(self) -> None:
        held = list(self._held.items())
        for first in range(0, len(held), _BATCH):
            async with _within(_TELLING_SECONDS), self._client.pipeline(transaction=False) as pipeline:
                for member, keys in held[first : first + _BATCH]:
                    if member in self._held:
                        await self._renew(list(keys), (self._lease_ms, member), client=pipeline)
                await pipeline.execute()

    async def close(self) -> None:
        await self._client.aclose()


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except _UNREACHABLE as problem:
        is_late = isinstance(problem, _TOO_LATE)
        raise CountsLost(type(problem).__name__, is_late=is_late, refusal=refusal(problem)) from problem
