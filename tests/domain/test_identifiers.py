"""Random identifiers."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from proxy.domain.identifiers import random_hex, random_uuid


def test_they_are_uuids_of_version_4() -> None:
    for _ in range(200):
        made = random_uuid()
        assert (made.version, made.variant) == (4, RFC_4122)
        assert made == UUID(str(made)) == pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
        assert hash(made) == hash(UUID(str(made)))


def test_all_their_other_bits_are_random() -> None:
    ones, zeros = 0, (1 << 128) - 1
    for _ in range(500):
        number = random_uuid().int
        ones, zeros = ones | number, zeros & number
    assert (ones ^ zeros).bit_count() == 122


def test_no_two_are_alike_among_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [each for part in pool.map(lambda _: [random_uuid() for _ in range(2000)], range(8)) for each in part]
    assert len(set(made)) == len(made)


def test_a_forked_process_draws_its_own() -> None:
    random_uuid()  # so that some are drawn, and would be had twice
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, random_uuid().bytes)
        os._exit(0)
    os.waitpid(child, 0)
    ours = {random_uuid().bytes for _ in range(200)}
    assert os.read(receiving, 16) not in ours
    os.close(receiving)
    os.close(sending)


def test_hexadecimal_digits_are_those_of_an_uuid_and_never_the_same() -> None:
    made = [random_hex() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(UUID(hex=each).version == 4 and UUID(hex=each).hex == each for each in made)
