"""When a process that has ended is started again."""

from __future__ import annotations

import pytest

from proxy.server.backoff import BackOff


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pauses_double_up_to_a_minute(clock: Clock) -> None:
    back_off, pauses = BackOff(clock), []
    for _ in range(10):
        pauses.append(back_off.ended(started=clock.now - 1))
        assert not back_off.may_start
        clock.now += pauses[-1]
        assert back_off.may_start
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_who_has_lived_for_long_is_replaced_at_once(clock: Clock) -> None:
    back_off = BackOff(clock)
    assert back_off.ended(started=clock.now - 31) == 0
    assert back_off.may_start


def test_one_that_lived_for_long_does_not_shorten_the_pause_for_others(clock: Clock) -> None:
    back_off = BackOff(clock)
    back_off.ended(started=clock.now - 1)
    back_off.ended(started=clock.now - 3600)
    assert not back_off.may_start


def test_after_a_while_without_it_is_forgotten(clock: Clock) -> None:
    back_off = BackOff(clock)
    assert [back_off.ended(started=clock.now - 1) for _ in range(3)] == [0.5, 1, 2]
    clock.now += 121
    assert back_off.ended(started=clock.now - 1) == 0.5
