"""The store of shared answers alone: how much it holds, who waits for whom, and what becomes of defects."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from proxy.application.idempotency import AnswerHead, Idempotency, IdempotencyKey, Reader, Recording
from proxy.domain.errors import IdempotencyKeyReused, IdempotentAnswerNotKept, StreamBroken
from proxy.infrastructure.idempotency.memory import Limits, MemoryIdempotencyStore, memory_store
from tests.harness import FakeTime

HEAD = AnswerHead(200, {})
STREAM_HEAD = AnswerHead(200, {}, is_stream=True)


def key(value: str = "k", principal: str = "p") -> IdempotencyKey:
    return IdempotencyKey(principal, value)


async def kept(store: MemoryIdempotencyStore, name: str, body: bytes = b"answer") -> None:
    """An answer that is there to be replayed."""
    recording, is_first = await store.claim(key(name), b"f")
    assert is_first
    recording.begin(HEAD)
    await recording.write(body, completes=True)
    recording.end(keep=True)


async def state(store: MemoryIdempotencyStore, name: str) -> str:
    """What the next request with that key would meet."""
    try:
        recording, is_first = await store.claim(key(name), b"f")
    except IdempotentAnswerNotKept:
        return "not kept"
    if is_first:
        recording.end(keep=False)
        return "free"
    return "replayed"


async def all_of(reader: Reader) -> bytes:
    data = b""
    while piece := (await reader.read())[0]:
        data += piece
    return data


async def test_two_principals_may_choose_the_same_key() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock)
    _, first = await store.claim(key(principal="a"), b"one")
    _, second = await store.claim(key(principal="b"), b"two")
    assert (first, second) == (True, True)


async def test_another_fingerprint_is_refused_while_it_runs_and_afterwards() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock)
    recording, _ = await store.claim(key(), b"one")
    with pytest.raises(IdempotencyKeyReused):
        await store.claim(key(), b"two")
    recording.begin(HEAD)
    recording.end(keep=True)
    with pytest.raises(IdempotencyKeyReused):
        await store.claim(key(), b"two")


async def test_when_there_is_no_room_the_oldest_answers_go_but_their_keys_stay() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock, Limits(total_bytes=100, answer_bytes=50))
    for name in "abc":
        await kept(store, name, b"x" * 40)
    assert [await state(store, name) for name in "abc"] == ["not kept", "replayed", "replayed"]


async def test_beyond_the_number_of_answers_the_oldest_keys_are_forgotten() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock, Limits(answers=2))
    for name in "abc":
        await kept(store, name)
    assert [await state(store, name) for name in "abc"] == ["free", "replayed", "replayed"]


async def test_room_is_given_back() -> None:
    """By answers that were read and let go, that were too large, that gave way, and whose time is over."""
    time = FakeTime()
    store = MemoryIdempotencyStore(time.timing().clock, Limits(total_bytes=100, answer_bytes=60, answers=3))
    for round_number in range(50):
        names = [f"{round_number}-{n}" for n in range(4)]
        for name, size in zip(names, (10, 50, 61, 60), strict=True):
            await kept(store, name, b"x" * size)
        recording, _ = await store.claim(key(f"{round_number}-freed"), b"f")
        await recording.write(b"x" * 30)
        recording.end(keep=False)
        time.now += 600
    await store.purge()
    await kept(store, "last", b"x" * 60)
    await kept(store, "lasting", b"x" * 40)
    assert [await state(store, name) for name in ("last", "lasting")] == ["replayed", "replayed"]


async def test_a_purge_gives_answers_back_also_while_nobody_asks() -> None:
    time = FakeTime()
    async with memory_store(time.timing().clock) as store:
        await kept(store, "k")
        recording = weakref.ref((await store.claim(key("k"), b"f"))[0])
        await store.purge()
        assert recording() is not None
        time.now += 600
        await store.purge()
        assert recording() is None


async def test_a_writer_waits_for_its_fastest_reader() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock)
    recording, _ = await store.claim(key(), b"f")
    fast, slow = recording.reader(), recording.reader()
    recording.begin(STREAM_HEAD)
    written = 0

    async def write() -> None:
        nonlocal written
        for _ in range(100):
            await recording.write(b"x" * 10_000)
            written += 1
        await recording.write(b"!", completes=True)
        recording.end(keep=True)

    writing = asyncio.create_task(write())
    for _ in range(20):
        await asyncio.sleep(0)
    assert written < 10
    got = await all_of(fast)
    await writing
    assert got == await all_of(slow) == b"x" * 1_000_000 + b"!"


async def test_of_an_answer_too_large_to_keep_those_far_behind_lose_their_place() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock, Limits(answer_bytes=100_000))
    recording, _ = await store.claim(key(), b"f")
    fast, dead = recording.reader(), recording.reader()
    recording.begin(STREAM_HEAD)

    async def write() -> None:
        for _ in range(100):
            await recording.write(b"x" * 10_000)
        recording.end(keep=True)

    writing = asyncio.create_task(write())
    assert len(await all_of(fast)) == 1_000_000
    await writing
    assert recording.held_bytes <= 256 * 1024
    with pytest.raises(StreamBroken):
        await dead.read()


async def test_many_large_streams_at_once_stay_within_the_limit() -> None:
    store = MemoryIdempotencyStore(FakeTime().timing().clock, Limits(total_bytes=1_000_000, answer_bytes=500_000))
    recordings = [(await store.claim(key(str(n)), b"f"))[0] for n in range(10)]
    readers = [recording.reader() for recording in recordings]
    for recording in recordings:
        recording.begin(STREAM_HEAD)
    for _ in range(45):
        for recording, reader in zip(recordings, readers, strict=True):
            await recording.write(b"x" * 10_000)
            await reader.read()
            assert sum(recording.held_bytes for recording in recordings) <= 1_100_000


async def test_a_defect_reaches_all_who_wait_and_frees_the_key() -> None:
    idempotency = Idempotency(MemoryIdempotencyStore(FakeTime().timing().clock))
    gate = asyncio.Event()

    async def defect(_recording: Recording) -> bool:
        await gate.wait()
        raise ZeroDivisionError

    shared = [await idempotency.join(key(), b"body", defect) for _ in range(3)]
    waiting = [asyncio.create_task(one.head()) for one in shared]
    await asyncio.sleep(0)
    gate.set()
    assert [type(it) for it in await asyncio.gather(*waiting, return_exceptions=True)] == [ZeroDivisionError] * 3
    for one in shared:
        await one.leave()
    assert (await idempotency.join(key(), b"other body", defect)).is_first


async def test_who_comes_while_a_deserted_request_is_being_cancelled_begins_anew() -> None:
    idempotency = Idempotency(MemoryIdempotencyStore(FakeTime().timing().clock))
    cancelled = asyncio.Event()

    async def slow_to_stop(_recording: Recording) -> bool:
        try:
            await asyncio.sleep(3600)
        finally:
            await cancelled.wait()
        return True

    first = await idempotency.join(key(), b"body", slow_to_stop)
    await asyncio.sleep(0)
    leaving = asyncio.create_task(first.leave())
    await asyncio.sleep(0)
    second = await idempotency.join(key(), b"body", slow_to_stop)
    assert second.is_first
    cancelled.set()
    await leaving
    third = await idempotency.join(key(), b"body", slow_to_stop)
    assert not third.is_first
    await third.leave()
    await second.leave()
