"""How much one process takes on."""

from __future__ import annotations

from uuid import uuid4

import pytest

from proxy.application.load import Load, Refusal
from proxy.domain.errors import Overloaded, RateLimited
from proxy.domain.overload import Pace
from proxy.domain.rate_limits import Priority


def load_of(most: int = 10, most_queued: int = 10, most_of_a_key: int = 10, most_connections: int = 10) -> Load:
    return Load(most, most_queued, most_of_a_key, most_connections, Pace(0.02))


def test_as_many_are_served_as_may_be_and_then_more_when_some_have_ended() -> None:
    load = load_of(most=2)
    load.begin(None, Priority.NORMAL)
    load.begin(None, Priority.NORMAL)
    assert load.refusal(Priority.HIGH) is Refusal.IN_FLIGHT
    with pytest.raises(Overloaded) as raised:
        load.begin(None, Priority.NORMAL)
    assert raised.value.retry_after_seconds > 0
    load.end(None)
    assert load.refusal(Priority.NORMAL) is None
    load.begin(None, Priority.NORMAL)
    assert load.in_flight == 2


def test_the_last_places_are_not_for_keys_of_low_priority() -> None:
    load = load_of(most=10)
    for _ in range(8):
        load.begin(None, Priority.LOW)
    assert load.refusal(Priority.LOW) is Refusal.IN_FLIGHT
    with pytest.raises(Overloaded):
        load.begin(None, Priority.LOW)
    assert load.refusal(Priority.NORMAL) is None
    load.begin(None, Priority.NORMAL)


def test_one_key_cannot_have_all_places() -> None:
    load, greedy, other = load_of(most_of_a_key=3), uuid4(), uuid4()
    for _ in range(3):
        load.begin(greedy, Priority.NORMAL)
    with pytest.raises(RateLimited) as raised:
        load.begin(greedy, Priority.NORMAL)
    assert raised.value.retry_after_seconds
    load.begin(other, Priority.NORMAL)
    assert load.in_flight == 4
    for key in (greedy, greedy, greedy, other):
        load.end(key)
    load.begin(greedy, Priority.NORMAL)
    assert load.in_flight == 1


def test_so_many_may_come_at_the_same_moment() -> None:
    load = load_of(most_queued=2)
    load.begun = 2
    assert load.may_refuse
    assert load.refusal(Priority.NORMAL) is Refusal.QUEUED
    assert load.next_turn() == (2, False)
    assert load.refusal(Priority.NORMAL) is None
    assert not load.may_refuse


def test_what_is_turned_away_is_counted_by_reason_and_told_once_to_the_pace() -> None:
    load = load_of()
    load.turn_away(Refusal.LATE)
    load.turn_away(Refusal.LATE)
    load.turn_away(Refusal.IN_FLIGHT)
    assert load.state()["refused"] == {"late": 2, "queued": 0, "in_flight": 1, "connections": 0}
    assert load.next_turn() == (0, True)
    assert load.next_turn() == (0, False)
