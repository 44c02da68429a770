"""Identifiers that are random, and in the order of their times."""

from __future__ import annotations

import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from proxy.domain.identifiers import new_hex, new_uuid


def test_they_are_uuids_of_version_7() -> None:
    for _ in range(200):
        made = new_uuid()
        assert (made.version, made.variant) == (7, RFC_4122)
        assert made == UUID(str(made)) == pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
        assert hash(made) == hash(UUID(str(made)))


def test_all_bits_but_their_times_are_random() -> None:
    ones, zeros = 0, (1 << 80) - 1
    for _ in range(500):
        number = new_uuid().int & (1 << 80) - 1
        ones, zeros = ones | number, zeros & number
    assert (ones ^ zeros).bit_count() == 74


def test_those_of_later_milliseconds_are_greater() -> None:
    for _ in range(128):  # those that an earlier test has left
        new_uuid()
    before = time.time_ns() // 1_000_000
    made = []
    for _ in range(20):
        time.sleep(0.002)
        made += [new_uuid().int for _ in range(64)]
    assert made == sorted(made)
    assert before <= made[-1] >> 80 <= time.time_ns() // 1_000_000


def test_no_two_are_alike_among_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [each for part in pool.map(lambda _: [new_uuid() for _ in range(2000)], range(8)) for each in part]
    assert len(set(made)) == len(made)


def test_a_forked_process_draws_its_own() -> None:
    new_uuid()  # so that some are drawn, and would be had twice
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, new_uuid().bytes)
        os._exit(0)
    os.waitpid(child, 0)
    ours = {new_uuid().bytes for _ in range(200)}
    assert os.read(receiving, 16) not in ours
    os.close(receiving)
    os.close(sending)


def test_hexadecimal_digits_are_those_of_an_uuid_and_never_the_same() -> None:
    made = [new_hex() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(UUID(hex=each).version == 7 and UUID(hex=each).hex == each for each in made)
