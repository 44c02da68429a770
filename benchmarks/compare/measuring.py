"""Rounds: every target in turn, for every kind of load, so that what disturbs one disturbs all."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.compare.answers import Kind
from benchmarks.compare.client import Address
from benchmarks.compare.load import Load, LoadGenerator
from benchmarks.compare.machine import Processors, busy_seconds
from benchmarks.compare.running import Running, Upstream

CONNECTIONS = {Kind.PLAIN: 64, Kind.BURST: 32, Kind.PACED: 32, Kind.LARGE: 16}
_SOAK_CONNECTIONS = 16


@dataclass(frozen=True)
class Plan:
    """How much is measured. `turns` are requests one after another, `starts` cold starts; 0 seconds: not at all."""

    rounds: int = 5
    seconds: float = 5.0
    warm_seconds: float = 3.0
    settle_seconds: float = 0.5  # for rows that are still to be written
    turns: int = 400
    starts: int = 2
    soak_requests: int = 50_000
    soak_seconds: float = 30.0


@dataclass
class Result:
    """A target's figures: by name, one value for each round (or start). `complaints` say what was not right."""

    version: str
    does: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    answered: int = 0
    wrong: int = 0
    rows: int | None = None

    def add(self, figure: str, value: float) -> None:
        self.samples.setdefault(figure, []).append(value)


@dataclass
class Bench:
    """What measuring needs: the load, the upstream, and who runs where."""

    load: LoadGenerator
    upstream: Upstream
    processors: Processors
    plan: Plan

    def start(self, running: Running, result: Result) -> None:
        """Cold starts, the last of which stays, and what it holds when it has nothing to do."""
        for number in range(self.plan.starts):
            if number:
                running.stop()
            result.add("cold_start_seconds", running.start())
        time.sleep(self.plan.settle_seconds * 2)
        result.add("idle_megabytes", running.resident_megabytes())

    def warm(self, running: Running, result: Result) -> None:
        for kind in Kind if self.plan.warm_seconds else ():
            self._crowd(running, result, kind, self.plan.warm_seconds / len(Kind))

    def rounds(self, pairs: Sequence[tuple[Running, Result]]) -> None:
        """All rounds; their direction changes, so that nobody always comes after the same one."""
        for number in range(self.plan.rounds):
            for phase in (*(self._phase(kind) for kind in Kind), self._latency):
                for running, result in pairs if number % 2 == 0 else reversed(pairs):
                    phase(running, result)
            say(f"round {number + 1} of {self.plan.rounds} is over")

    def soak(self, running: Running, result: Result) -> None:
        """How the memory grows under many plain requests, after all that came before."""
        if not self.plan.soak_seconds:
            return
        before = running.resident_megabytes()
        load = self._crowd(running, result, Kind.PLAIN, self.plan.soak_seconds, _SOAK_CONNECTIONS)
        time.sleep(self.plan.settle_seconds)
        result.add("soak_requests", load.answered)
        result.add("soak_growth_megabytes", running.resident_megabytes() - before)
        result.add("loaded_megabytes", running.resident_megabytes())

    def _phase(self, kind: Kind) -> Callable[[Running, Result], None]:
        def measure(running: Running, result: Result) -> None:
            own = running.cpu_seconds()
            of_database = running.database_cpu_seconds()
            busy, began = busy_seconds(self.processors.gateway), time.perf_counter()
            load = self._crowd(running, result, kind, self.plan.seconds)
            time.sleep(self.plan.settle_seconds)
            wall = time.perf_counter() - began
            own, of_database = running.cpu_seconds() - own, running.database_cpu_seconds() - of_database
            others = busy_seconds(self.processors.gateway) - busy - own
            answers = load.answered or math.nan
            result.add(f"{kind}_cpu_ms", own / answers * 1000)
            result.add(f"{kind}_per_second", load.answered / load.seconds)
            result.add(f"{kind}_first_byte_p50_ms", load.first_byte_p50_ms)
            result.add("others_share", max(0.0, others / wall))
            if running.target.database:
                result.add(f"{kind}_database_ms", of_database / answers * 1000)

        return measure

    def _crowd(
        self, running: Running, result: Result, kind: Kind, seconds: float, connections: int | None = None
    ) -> Load:
        before = self.upstream.answered()
        load = self.load.crowd(
            running.address,
            kind,
            connections=connections or CONNECTIONS[kind],
            seconds=seconds,
            requests=self.plan.soak_requests,
        )
        self._note(running, result, load, f"{kind}: {load.example}")
        calls = self.upstream.answered() - before
        if calls != load.answered and not load.wrong:
            result.complaints.append(f"{kind}: {calls} calls of the upstream for {load.answered} answers")
        return load

    def _latency(self, running: Running, result: Result) -> None:
        direct_address = Address(f"{self.upstream.url}/v1/chat/completions")
        direct, load = self.load.in_turns([direct_address, running.address], Kind.PLAIN, self.plan.turns)
        self._note(running, result, load, f"one at a time: {load.example}")
        result.add("added_p50_ms", load.p50_ms - direct.p50_ms)
        result.add("added_p99_ms", load.p99_ms - direct.p99_ms)

    @staticmethod
    def _note(running: Running, result: Result, load: Load, example: str) -> None:
        running.answered += load.answered
        result.wrong += load.wrong
        if load.wrong:
            result.complaints.append(f"{load.wrong} wrong answers, {example}")


def say(text: str) -> None:
    """Progress, beside the report."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
