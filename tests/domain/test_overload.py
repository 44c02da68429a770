"""Who waits, who is served next, and who has waited for long enough: in a time that is the tests' own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from proxy.domain.overload import AdmissionQueue, Patience
from proxy.domain.rate_limits import Priority

USUAL = 0.05
MOST = 500
EACH = 0.00045  # seconds of the processor
A_TURN = 2
REFUSAL = 0.00002


@dataclass
class Server:
    """Begins two requests in a turn, which takes as long as they do. Who is asked again at once comes with the next.

    `waits` are those of requests that began, `told` those of refused ones; `came` are the moments at which those came.
    """

    queue: AdmissionQueue[float] = field(default_factory=lambda: AdmissionQueue(Patience(USUAL), MOST))
    now: float = 100.0
    waits: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    each: float = EACH

    def turn(self) -> tuple[int, int]:
        """How many were served, and how many refused."""
        began, served, refused = self.now, 0, 0
        while served < A_TURN and (came := self.queue.take(Priority.NORMAL, began)) is not None:
            self.waits.append(began - came)
            served += 1
        for came in [*self.queue.expired(Priority.NORMAL, began), *self.queue.expired_without_place(began)]:
            self.told.append(began - came)
            refused += 1
        self.now += max(served * self.each + refused * REFUSAL, 0.0001)
        if served and self.queue:
            self.queue.served(served, self.now - began)
        return served, refused

    def closed(self, clients: int, seconds: float) -> None:
        """So many clients, each with one request at a time."""
        end, coming = self.now + seconds, clients
        while self.now < end:
            for _ in range(coming):
                self.queue.add(self.now, Priority.NORMAL, self.now)
            coming = sum(self.turn())
        self.drain()

    def open(self, per_second: float, seconds: float) -> None:
        """So many requests a second, whatever becomes of them."""
        began, sent = self.now, 0
        while self.now < began + seconds:
            before = self.now
            self.turn()
            while began + sent / per_second < self.now:
                self.queue.add(began + sent / per_second, Priority.NORMAL, before)
                sent += 1
        self.drain()

    def drain(self) -> None:
        while self.queue:
            self.turn()

    def forget(self) -> None:
        self.waits, self.told = [], []


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def test_who_can_be_served_in_time_is_never_refused() -> None:
    """64 clients who ask again at once keep the core busy, and each is served within 30 ms."""
    server = Server()
    server.closed(64, 3.0)
    assert not server.told
    assert len(server.waits) > 5_000
    assert max(server.waits) < USUAL


def test_nor_is_he_after_a_time_of_overload() -> None:
    server = Server()
    server.closed(500, 3.0)
    assert server.told
    server.forget()
    server.closed(64, 3.0)
    assert not server.told


def test_at_five_times_the_capacity_nothing_is_lost_but_the_cost_of_refusals() -> None:
    server, seconds, times = Server(), 20.0, 5
    server.open(times / EACH, seconds)
    assert len(server.waits) > 0.8 * seconds / EACH
    assert p99(server.waits) < 0.02
    assert p99(server.told) < 0.07


@pytest.mark.parametrize(("times", "seconds"), [(1.05, 6.0), (1.5, 5.0), (10.0, 3.0)])
def test_however_large_the_overload_is_waits_are_short(times: float, seconds: float) -> None:
    """But for its first seconds, which might be a burst."""
    server = Server()
    server.open(times / EACH, seconds)
    assert len(server.waits) > (1 - times * REFUSAL / EACH) * 0.97 * seconds / EACH
    assert p99(server.waits[len(server.waits) // 2 :]) < 0.06
    assert p99(server.told[len(server.told) // 2 :]) < 0.08


def test_however_little_a_request_may_wait_refusals_are_told_late() -> None:
    """Told at once, as many clients would ask again at once, until refusals were most of what is done."""
    server, seconds = Server(queue=AdmissionQueue(Patience(USUAL / 5), MOST)), 5.0
    server.closed(320, seconds)
    assert min(server.told) >= USUAL
    assert len(server.waits) > 0.7 * seconds / EACH
    assert p99(server.waits[len(server.waits) // 2 :]) < 0.3 * USUAL
    assert p99(server.told) < 2 * USUAL


def test_a_burst_is_served_in_the_order_in_which_it_came() -> None:
    queue, now, served = AdmissionQueue[int](Patience(USUAL), MOST), 100.0, list[int | None]()
    for number in range(MOST):
        queue.add(number, Priority.NORMAL, now)
    while queue:
        before, now = now, now + A_TURN * EACH
        served += [queue.take(Priority.NORMAL, before) for _ in range(A_TURN)]
        assert not list(queue.expired(Priority.NORMAL, before))
        queue.served(A_TURN, now - before)
    assert served[:MOST] == list(range(MOST))


def test_so_is_one_on_a_machine_that_takes_ten_times_as_long() -> None:
    server = Server(each=10 * EACH)
    for _ in range(100):
        server.queue.add(server.now, Priority.NORMAL, server.now)
    server.drain()
    assert not server.told


def test_one_long_turn_is_no_overload() -> None:
    server = Server()
    for round_number in range(3):
        for _ in range(50):
            server.queue.add(server.now, Priority.NORMAL, server.now)
        server.now += 0.3 + round_number / 10
        server.drain()
        server.now += 1.0
    assert not server.told


def test_beyond_the_places_to_wait_it_is_told_no_sooner() -> None:
    """Who is told at once asks again at once."""
    queue = AdmissionQueue[str](Patience(USUAL), 2)
    assert [queue.add(name, Priority.NORMAL, 1.0) for name in "abc"] == [True, True, False]
    assert not list(queue.expired_without_place(1.04))
    assert list(queue.expired_without_place(1.06)) == ["c"]
    assert [queue.take(Priority.NORMAL, 1.06) for _ in range(3)] == ["a", "b", None]


def test_those_of_low_priority_have_fewer_places_and_those_of_high_more() -> None:
    places = Counter[Priority]()
    for priority in Priority:
        queue = AdmissionQueue[int](Patience(USUAL), 10)
        places[priority] = sum(queue.add(number, priority, 1.0) for number in range(100))
    assert places == {Priority.LOW: 5, Priority.NORMAL: 10, Priority.HIGH: 20}


def test_who_cannot_begin_waits_no_longer_than_usual() -> None:
    queue = AdmissionQueue[str](Patience(USUAL), 2)
    queue.add("a", Priority.NORMAL, 1.0)
    assert not list(queue.expired(Priority.NORMAL, 1.06))
    assert not list(queue.expired(Priority.NORMAL, 1.04, has_room=False))
    assert list(queue.expired(Priority.NORMAL, 1.06, has_room=False)) == ["a"]
    assert not queue


def test_without_a_limit_nobody_has_waited_for_too_long() -> None:
    queue = AdmissionQueue[str](Patience(0.0), 2)
    queue.add("a", Priority.NORMAL, 1.0)
    assert not list(queue.expired(Priority.NORMAL, 1000.0))
    assert list(queue.expired(Priority.NORMAL, 1000.0, has_room=False)) == ["a"]


def late(now: float, observe: Callable[[Patience], None]) -> Patience:
    patience = Patience(USUAL)
    patience.ran_out(now)
    observe(patience)
    return patience


def test_it_is_over_when_nobody_had_to_go_for_two_seconds() -> None:
    assert late(1.0, lambda patience: patience.observe(0.001, 2.9)).is_late
    assert not late(1.0, lambda patience: patience.observe(0.001, 3.1)).is_late


def test_turns_that_are_long_again_and_again_make_the_loop_late() -> None:
    patience, seen = Patience(USUAL), []
    for turn in (0.3, 0.06, 0.001, 0.06, 0.06, 0.06, 0.001):
        patience.observe(turn, 1.0)
        seen.append(patience.is_loop_late)
    assert seen == [False] * 5 + [True, False]
    for usual, turn in ((0.0, 10.0), (0.005, 0.03)):  # it is as long on a slow machine with sixteen requests
        patience = Patience(usual)
        for _ in range(5):
            patience.observe(turn, 1.0)
        assert not patience.is_loop_late
