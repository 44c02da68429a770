"""How much one process takes on."""

from __future__ import annotations

from uuid import uuid4

import pytest

from proxy.application.load import Load, Refusal
from proxy.domain.errors import Overloaded, RateLimited
from proxy.domain.overload import Patience
from proxy.domain.rate_limits import Priority


def load_of(most: int = 10, most_queued: int = 10, most_of_a_key: int = 10, most_connections: int = 10) -> Load:
    return Load(most, most_queued, most_of_a_key, most_connections, Patience(0.05))


def test_as_many_are_served_as_may_be_and_then_more_when_some_have_ended() -> None:
    load = load_of(most=2)
    load.begin(None, Priority.NORMAL)
    load.begin(None, Priority.NORMAL)
    assert not load.has_room(Priority.HIGH)
    with pytest.raises(Overloaded) as raised:
        load.begin(None, Priority.NORMAL)
    assert raised.value.retry_after_seconds > 0
    load.end(None)
    assert load.has_room(Priority.NORMAL)
    load.begin(None, Priority.NORMAL)
    assert load.in_flight == 2


def test_the_last_places_are_not_for_keys_of_low_priority() -> None:
    load = load_of(most=10)
    for _ in range(8):
        load.begin(None, Priority.LOW)
    assert not load.has_room(Priority.LOW)
    assert not load.has_room_for_all
    with pytest.raises(Overloaded):
        load.begin(None, Priority.LOW)
    assert load.has_room(Priority.NORMAL)
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


def test_with_more_connections_than_may_be_everybody_is_looked_at() -> None:
    load = load_of(most_connections=1)
    load.connections = 1
    assert load.has_room_for_all
    load.connections = 2
    assert not load.has_room_for_all


def test_what_is_turned_away_is_told_by_reason() -> None:
    load = load_of()
    load.refused[Refusal.LATE] += 2
    load.refused[Refusal.IN_FLIGHT] += 1
    assert load.state()["refused"] == {"late": 2, "queued": 0, "in_flight": 1, "connections": 0}
    assert load.state()["is_late"] is False
    load.patience.ran_out(1.0)
    assert load.state()["is_late"] is True
