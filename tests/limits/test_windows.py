"""The counter alone: what the request path asks of it in one go is what its readings say."""

from __future__ import annotations

import random

from proxy.infrastructure.limits.windows import Windows
from tests.limits.conftest import Clock


def test_room_and_readings_agree_at_every_moment() -> None:
    clock, chance = Clock(), random.Random(6)  # noqa: S311
    windows, twin = Windows(clock), Windows(clock)
    for _ in range(5000):
        clock.now += chance.choice([0.0, 0.5, 7.0, 40.0, 200.0]) * chance.random()
        key, limit, cost = chance.choice("ab"), chance.choice([1, 20, 300]), chance.choice([1, 5, 20])
        has_room = windows.has_room(key, limit, cost, clock.now)
        assert has_room == twin.read(key, limit).has(cost)
        if has_room:
            started = twin.add(key, cost)
            reading = windows.take(key, limit, cost, clock.now)
            assert reading == twin.read(key, limit)
            assert reading.started == started
