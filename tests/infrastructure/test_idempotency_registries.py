"""Keys that several processes know: each test is two stores over one registry, of files and of a real Valkey."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from proxy.application.idempotency import AnswerHead, IdempotencyKey
from proxy.domain.errors import IdempotencyKeyReused, IdempotentAnswerNotKept, IdempotentRequestRunning
from proxy.infrastructure.idempotency.files import FileRegistry, forgetting
from proxy.infrastructure.idempotency.memory import Limits, MemoryRecording
from proxy.infrastructure.idempotency.registry import KeyRegistry
from proxy.infrastructure.idempotency.shared import SharedIdempotencyStore, shared_store
from proxy.infrastructure.idempotency.valkey import Room, ValkeyRegistry
from tests.valkey import Valkey

KEY = IdempotencyKey("key:1", "k")
HEAD = AnswerHead(200, {"Content-Type": "text/event-stream", "x-generation-id": "gen-1"}, is_stream=True)
Start = Callable[..., Any]


@dataclass
class Clock:
    """Seconds of Unix, as files see them."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Stores:
    """Starts stores as other processes would, over registries of one kind."""

    registry: Callable[[], KeyRegistry]
    stack: AsyncExitStack
    clock: Clock = field(default_factory=Clock)

    async def start(self, most_seconds: float = 30.0) -> SharedIdempotencyStore:
        store = shared_store(self.registry(), most_seconds, time.monotonic)
        return await self.stack.enter_async_context(store)


@pytest.fixture(params=["files", "valkey"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    async with AsyncExitStack() as stack:
        clock = Clock()
        if request.param == "files":
            yield Stores(lambda: FileRegistry(tmp_path / "keys", clock=clock), stack, clock)
        else:
            server: Valkey = request.getfixturevalue("valkey")
            yield Stores(lambda: ValkeyRegistry(server.url, 1.0, lease_seconds=0.3), stack, clock)


async def first(store: SharedIdempotencyStore, key: IdempotencyKey = KEY, fingerprint: bytes = b"f" * 32) -> Any:
    recording, is_first = await store.claim(key, fingerprint)
    assert is_first
    recording.begin(HEAD)
    return recording


async def answered(store: SharedIdempotencyStore, body: bytes = b"answer", *, keep: bool = True) -> None:
    """As if the request had been carried out here, and its answer told."""
    recording = await first(store)
    await recording.write(body, completes=True)
    recording.end(keep=keep)
    await told(store)


async def told(store: SharedIdempotencyStore) -> None:
    while store._telling:
        await asyncio.sleep(0.005)


async def asked(store: SharedIdempotencyStore, fingerprint: bytes = b"f" * 32) -> MemoryRecording | None:
    """The recording; None if the caller is the first."""
    recording, is_first = await store.claim(KEY, fingerprint)
    if is_first:
        recording.end(keep=False)
    return None if is_first else recording


async def text(recording: MemoryRecording | None) -> bytes:
    assert recording is not None
    reader, data = recording.reader(), b""
    assert await reader.head() == HEAD
    while piece := (await reader.read())[0]:
        data += piece
    return data


async def test_what_one_has_answered_the_other_sends_again(stores: Stores) -> None:
    one, other = await stores.start(), await stores.start()
    await answered(one, b"x" * 600_000)
    for store in (one, other):
        assert await text(await asked(store)) == b"x" * 600_000
    recording = await asked(other)
    assert recording is not None
    reader = recording.reader()
    completes = [(await reader.read())[1] for _ in range(3)]
    assert completes == [False, False, True]


async def test_another_request_with_the_key_is_refused_by_the_other(stores: Stores) -> None:
    one, other = await stores.start(), await stores.start()
    recording = await first(one)
    with pytest.raises(IdempotencyKeyReused):
        await asked(other, b"g" * 32)
    await recording.write(b"!", completes=True)
    recording.end(keep=True)
    await told(one)
    with pytest.raises(IdempotencyKeyReused):
        await asked(other, b"g" * 32)


async def test_of_many_at_once_in_several_processes_one_is_the_first(stores: Stores) -> None:
    several = [await stores.start() for _ in range(3)]
    firsts = 0

    async def ask(store: SharedIdempotencyStore) -> bytes:
        nonlocal firsts
        recording, is_first = await store.claim(KEY, b"f" * 32)
        if is_first:
            firsts += 1
            recording.begin(HEAD)
            await asyncio.sleep(0.1)
            await recording.write(b"answer", completes=True)
            recording.end(keep=True)
        return await text(recording)

    got = await asyncio.gather(*(ask(store) for store in several * 10))
    assert (firsts, set(got)) == (1, {b"answer"})


async def test_who_has_waited_shares_a_failure_and_who_comes_later_begins_anew(stores: Stores) -> None:
    one, other, third = await stores.start(), await stores.start(), await stores.start()
    recording = await first(one)
    waiting = asyncio.create_task(asked(other))
    await asyncio.sleep(0.1)
    await recording.write(b"no", completes=True)
    recording.end(keep=False)
    assert await text(await waiting) == b"no"
    assert await asked(third) is None


async def test_a_request_that_was_given_up_is_carried_out_by_one_who_waits(stores: Stores) -> None:
    one, other = await stores.start(), await stores.start()
    recording = await first(one)
    await recording.write(b"some")
    waiting = asyncio.create_task(asked(other))
    await asyncio.sleep(0.1)
    recording.end(keep=False)
    assert await waiting is None


async def test_who_goes_away_while_waiting_leaves_nothing_behind(stores: Stores) -> None:
    one, other, third = await stores.start(), await stores.start(), await stores.start()
    recording = await first(one)
    for pause in (0.0, 0.001, 0.05):
        waiting = asyncio.create_task(other.claim(KEY, b"f" * 32))
        await asyncio.sleep(pause)
        waiting.cancel()
        await asyncio.wait([waiting])
    recording.end(keep=False)
    await told(one)
    gone = asyncio.create_task(other.claim(KEY, b"f" * 32))  # the key is free: it may get it in the very moment
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    await told(other)
    assert await asked(third) is None


async def test_it_is_waited_for_so_long_and_no_longer(stores: Stores) -> None:
    one, other = await stores.start(), await stores.start(most_seconds=0.1)
    recording = await first(one)
    with pytest.raises(IdempotentRequestRunning):
        await asked(other)
    recording.end(keep=False)


async def test_a_request_that_runs_for_long_keeps_its_key(stores: Stores) -> None:
    one, other = await stores.start(), await stores.start(most_seconds=0.7)
    recording = await first(one)
    waiting = asyncio.create_task(asked(other))
    while not waiting.done():
        await one.keep()
        await asyncio.sleep(0.05)
    with pytest.raises(IdempotentRequestRunning):
        await waiting
    recording.end(keep=False)


# Files


async def test_files_tell_nothing_to_others_and_go_in_time(tmp_path: Path) -> None:
    clock, directory = Clock(), tmp_path / "keys"
    async with AsyncExitStack() as stack:
        registry = FileRegistry(directory, clock=clock)
        stores = Stores(lambda: registry, stack, clock)
        await answered(await stores.start(), b"confidential")
        (path,) = directory.glob("[!.]*")
        assert (path.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)
        assert len(path.name) == 64
        await asyncio.to_thread(registry.purge)
        assert path.exists()
        clock.ahead = 599
        assert await asked(await stores.start()) is not None
        clock.ahead = 601
        assert await asked(await stores.start()) is None
        await answered(await stores.start(), b"anew")
        clock.ahead = 1300
        await asyncio.to_thread(registry.purge)
        assert list(directory.glob("*")) == []


async def test_files_are_bounded_and_the_keys_of_answers_that_went_stay_known(tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path, Limits(answers=3, total_bytes=3000, answer_bytes=2000))
    async with (
        shared_store(registry, 1.0, time.monotonic) as store,
        shared_store(registry, 1.0, time.monotonic) as other,
    ):
        for name, size in (("a", 100), ("b", 1800), ("c", 1500), ("d", 1400)):
            recording = await first(store, IdempotencyKey("p", name))
            await recording.write(b"x" * size, completes=True)
            recording.end(keep=True)
            await told(store)
        await asyncio.to_thread(registry.purge)
        assert len(list(tmp_path.iterdir())) == 3
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 3200
        with pytest.raises(IdempotentAnswerNotKept):
            await other.claim(IdempotencyKey("p", "b"), b"f" * 32)
        assert not (await other.claim(IdempotencyKey("p", "d"), b"f" * 32))[1]
        recording, is_first = await other.claim(IdempotencyKey("p", "a"), b"f" * 32)
        assert is_first
        recording.end(keep=False)


async def test_what_workers_have_left_goes_also_when_there_are_none_any_more(tmp_path: Path) -> None:
    async with shared_store(FileRegistry(tmp_path), 1.0, time.monotonic) as store:
        await answered(store)
    (path,) = tmp_path.iterdir()
    async with forgetting(tmp_path):
        await asyncio.sleep(0.1)
        assert path.exists()
    os.utime(path, (0, time.time() - 601))
    async with forgetting(tmp_path), asyncio.timeout(5):
        while path.exists():
            await asyncio.sleep(0.02)


_HOLDING = """
import asyncio, pathlib, sys
from proxy.infrastructure.idempotency.files import FileRegistry
from proxy.infrastructure.idempotency.records import Claim

async def hold():
    registry = FileRegistry(pathlib.Path(sys.argv[1]))
    assert await registry.claim(sys.argv[2], Claim(b"t" * 16, b"f" * 32), None) is None
    print("held", flush=True)
    await asyncio.sleep(60)

asyncio.run(hold())
"""


async def test_a_killed_process_gives_its_keys_back_at_once(tmp_path: Path) -> None:
    from proxy.infrastructure.idempotency.shared import _name_of

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLDING, str(tmp_path), _name_of(KEY)), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    async with shared_store(FileRegistry(tmp_path), 30.0, time.monotonic) as store:
        waiting = asyncio.create_task(asked(store))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        async with asyncio.timeout(5):
            assert await waiting is None


async def test_a_directory_that_takes_nothing_leaves_each_to_itself_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file is in the way")
    async with shared_store(FileRegistry(tmp_path / "keys"), 1.0, time.monotonic) as store:
        await answered(store)
        assert await asked(store) is not None
        assert store.state()["mode"] == "memory"
        assert "each worker's own" in (store.trouble or "")
        (tmp_path / "keys").unlink()
        await store.keep()
        assert (store.trouble, store.state()["mode"]) == (None, "files")


# Valkey


async def test_a_frozen_valkey_costs_its_deadline_once_and_is_taken_up_again(valkey: Valkey) -> None:
    registry = ValkeyRegistry(valkey.url, 0.1, lease_seconds=0.5)
    async with shared_store(registry, 5.0, time.monotonic) as store, AsyncExitStack() as stack:
        await answered(store, b"before")
        valkey.freeze()
        for number in range(20):
            recording = await first(store, IdempotencyKey("p", f"{number}"))
            recording.end(keep=False)
        assert store.state()["last_error"] == "TimeoutError"
        assert "Valkey does not answer" in (store.trouble or "")
        valkey.thaw()
        async with asyncio.timeout(10):
            while store.trouble is not None:
                await asyncio.sleep(0.05)
        other = await Stores(lambda: ValkeyRegistry(valkey.url, 1.0), stack).start()
        assert await text(await asked(other)) == b"before"


async def test_what_another_is_known_to_have_is_not_carried_out_twice_when_valkey_goes(valkey: Valkey) -> None:
    async with AsyncExitStack() as stack:
        stores = Stores(lambda: ValkeyRegistry(valkey.url, 0.2), stack)
        one, other = await stores.start(), await stores.start()
        recording = await first(one)
        waiting = asyncio.create_task(asked(other))
        await asyncio.sleep(0.1)
        valkey.kill()
        with pytest.raises(IdempotentRequestRunning):
            await waiting
        recording.end(keep=False)


async def test_a_killed_gateway_gives_its_keys_back_with_its_lease(valkey: Valkey) -> None:
    async with AsyncExitStack() as stack:
        dead = ValkeyRegistry(valkey.url, 1.0, lease_seconds=0.3)
        one = SharedIdempotencyStore(await memory(stack), dead, 1.0, time.monotonic)  # of which nobody keeps anything
        recording = await first(one)
        other = await Stores(lambda: ValkeyRegistry(valkey.url, 1.0), stack).start()
        assert await asked(other) is None
        await told(other)
        recording.end(keep=False)
        await one.end()


async def memory(stack: AsyncExitStack) -> Any:
    from proxy.infrastructure.idempotency.memory import memory_store

    return await stack.enter_async_context(memory_store(time.monotonic))


async def test_valkey_is_not_filled_and_the_keys_of_answers_that_had_no_room_stay_known(valkey: Valkey) -> None:
    async with AsyncExitStack() as stack:
        stores = Stores(lambda: ValkeyRegistry(valkey.url, 1.0, Room(answer_bytes=1000, total_bytes=1500)), stack)
        one, other = await stores.start(), await stores.start()
        for name, size in (("a", 700), ("b", 1001), ("c", 900), ("d", 600)):
            recording = await first(one, IdempotencyKey("p", name))
            await recording.write(b"x" * size, completes=True)
            recording.end(keep=True)
            await told(one)
        known: dict[str, bool | None] = {}
        for name in "abcd":
            try:
                known[name] = (await other.claim(IdempotencyKey("p", name), b"f" * 32))[1]
            except IdempotentAnswerNotKept:
                known[name] = None
        assert known == {"a": False, "b": None, "c": None, "d": False}


async def test_a_valkey_that_takes_no_writes_is_not_taken_up_again(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A replica that was left behind by a failover answers all the same."""
    caplog.set_level("INFO")
    async with shared_store(ValkeyRegistry(valkey.url, 1.0), 5.0, time.monotonic) as store:
        await answered(store)
        with Redis.from_url(valkey.url) as server:
            server.replicaof("127.0.0.1", "1")
            recording = await first(store, IdempotencyKey("p", "another"))
            recording.end(keep=False)
            await store.keep()
            assert store.trouble == "Valkey does not answer: idempotency keys are each process's own (ReadOnlyError)"
            assert "idempotency keys are shared again" not in caplog.messages
            server.replicaof("NO", "ONE")
        async with asyncio.timeout(10):
            while store.trouble is not None:
                await asyncio.sleep(0.05)
