"""Who begins with whom, and who is turned away."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from proxy.application.load import Load, Refusal
from proxy.domain.rate_limits import Priority
from proxy.server.gate import Gate
from tests.overload.conftest import load_of, until

TOGETHER = 16


@dataclass(eq=False)
class Waiting:
    """A connection with a request; one that has gone neither begins nor is refused. `events` are shared."""

    name: str
    events: list[str] = field(default_factory=list)
    has_gone: bool = False
    priority: Priority = Priority.NORMAL

    def authorization(self) -> str:
        return self.priority.name

    def begin(self) -> bool:
        if not self.has_gone:
            self.events.append(f"{self.name} begins")
        return not self.has_gone

    def refuse(self, reason: Refusal) -> bool:
        if not self.has_gone:
            self.events.append(f"{self.name} refused: {reason.value}")
        return not self.has_gone


def gate_of(load: Load) -> Gate:
    """Whose requests have their priority's name as Authorization."""
    return Gate(load, lambda authorization: Priority[authorization or ""])


def come(gate: Gate, count: int, events: list[str], priority: Priority = Priority.NORMAL) -> list[Waiting]:
    visitors = [Waiting(f"{priority.name.lower()} {number}", events, priority=priority) for number in range(count)]
    for visitor in visitors:
        gate.wait(visitor)
    return visitors


def patient() -> Load:
    return load_of(most=1000, most_queued=1000, patience_seconds=30.0)


async def test_some_begin_together_the_first_first() -> None:
    gate, events, begun = gate_of(patient()), list[str](), list[int]()
    come(gate, 3 * TOGETHER, events)
    assert not gate.is_open
    while len(events) < 3 * TOGETHER:
        await asyncio.sleep(0)
        begun.append(len(events))
    assert events == [f"normal {number} begins" for number in range(3 * TOGETHER)]
    assert set(begun) == {TOGETHER, 2 * TOGETHER, 3 * TOGETHER}
    await until(lambda: gate.is_open)


async def test_the_next_begin_when_these_are_through_their_stages() -> None:
    load = patient()
    gate, events, cohort = gate_of(load), list[str](), load.cohort
    for _ in range(10):
        cohort.began(TOGETHER)
    come(gate, 2 * TOGETHER, events)
    for _ in range(5):
        await asyncio.sleep(0)
        assert len(events) == TOGETHER
        cohort.outward += 1  # one of them has stopped on its way in this turn
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(events) == 2 * TOGETHER


async def test_who_comes_while_there_is_room_goes_with_them() -> None:
    load = patient()
    gate, cohort = gate_of(load), load.cohort
    for _ in range(10):
        cohort.began(TOGETHER)
    gate.let_in()
    for _ in range(TOGETHER - 1):
        await asyncio.sleep(0)
        cohort.outward += 1
        assert gate.is_open
        gate.let_in()
    assert not gate.is_open
    await until(lambda: gate.is_open)


async def test_requests_that_begin_together_are_noted_as_a_cohort() -> None:
    load = patient()
    gate = gate_of(load)
    for _ in range(10):
        for _ in range(TOGETHER):
            gate.let_in()
        await until(lambda: gate.is_open)
    assert load.cohort.has_several


async def test_as_many_begin_at_once_when_nobody_waits() -> None:
    gate = gate_of(patient())
    for _ in range(TOGETHER):
        assert gate.is_open
        gate.let_in()
    assert not gate.is_open
    await asyncio.sleep(0)
    assert gate.is_open


async def test_without_a_limit_of_time_all_begin_in_their_turn() -> None:
    gate, events = gate_of(load_of(most=1000, most_queued=50, patience_seconds=0)), list[str]()
    come(gate, 50, events)
    await until(lambda: len(events) == 50)
    assert events == [f"normal {number} begins" for number in range(50)]


async def test_those_of_high_priority_begin_first_and_those_of_low_last() -> None:
    gate, events = gate_of(patient()), list[str]()
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        come(gate, 4, events, priority)
    await until(lambda: len(events) == 12)
    assert [event.split()[0] for event in events] == ["high"] * 4 + ["normal"] * 4 + ["low"] * 4


async def test_who_has_gone_takes_nobodys_turn() -> None:
    gate, events = gate_of(patient()), list[str]()
    for visitor in come(gate, 3 * TOGETHER, events)[:TOGETHER]:
        visitor.has_gone = True
    await asyncio.sleep(0)
    assert events == [f"normal {number} begins" for number in range(TOGETHER, 2 * TOGETHER)]


async def test_while_as_many_are_served_as_may_be_they_wait_and_then_go() -> None:
    load = load_of(most=10)
    gate, events = gate_of(load), list[str]()
    load.in_flight = 9
    come(gate, 1, events, Priority.LOW)
    come(gate, 1, events, Priority.NORMAL)
    await until(lambda: len(events) == 2)
    assert events == ["normal 0 begins", "low 0 refused: in_flight"]
    assert load.refused == {Refusal.IN_FLIGHT: 1}
    assert not load.patience.is_late


async def test_a_place_that_is_free_in_time_is_theirs() -> None:
    load = load_of(most=10, patience_seconds=30.0)
    load.in_flight = 10
    gate, events = gate_of(load), list[str]()
    come(gate, 1, events)
    await asyncio.sleep(0.02)
    assert not events
    load.in_flight = 9
    await until(lambda: events == ["normal 0 begins"])


async def test_nobody_begins_while_turns_are_long_without_them() -> None:
    """Open streams alone can take all the time there is."""
    load = load_of(most=10)
    for _ in range(3):
        load.patience.observe(0.2, 1.0)
    gate, events = gate_of(load), list[str]()
    assert not gate.is_open
    come(gate, 2, events)
    await until(lambda: len(events) == 2)
    assert events == ["normal 0 refused: late", "normal 1 refused: late"]
    assert load.patience.is_late
    load.patience.observe(0.001, 1.0)
    assert gate.is_open


async def test_more_than_may_wait_are_refused() -> None:
    load = load_of(most=10, most_queued=2)
    load.in_flight = 10
    gate, events = gate_of(load), list[str]()
    come(gate, 3, events)
    await until(lambda: len(events) == 3)
    assert sorted(events) == [
        "normal 0 refused: in_flight",
        "normal 1 refused: in_flight",
        "normal 2 refused: queued",
    ]
