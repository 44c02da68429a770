"""The load generator's process: it reads orders from stdin, a JSON object a line, and answers each with a line.

It is a process of its own so that it can be on another processor than the gateway, and it stays, so that starting it
costs nothing while somebody is measured.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import uvloop

from benchmarks.compare.answers import Kind
from benchmarks.compare.client import Address, Crowd, Outcome, Single


@dataclass(frozen=True)
class Load:
    """What happened to a load. Times are milliseconds; percentiles are over the right answers."""

    answered: int
    wrong: int
    example: str
    seconds: float
    p50_ms: float
    p99_ms: float
    first_byte_p50_ms: float
    first_byte_p99_ms: float


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """The smallest that is not exceeded by that share of them, NaN of none."""
    if not seconds:
        return math.nan
    return sorted(seconds)[max(0, math.ceil(len(seconds) * share) - 1)] * 1000


def summary(outcome: Outcome) -> Load:
    took, first = outcome.took_seconds, outcome.first_byte_seconds
    return Load(
        answered=len(took),
        wrong=outcome.wrong,
        example=outcome.example,
        seconds=outcome.seconds,
        p50_ms=percentile_ms(took, 0.5),
        p99_ms=percentile_ms(took, 0.99),
        first_byte_p50_ms=percentile_ms(first, 0.5),
        first_byte_p99_ms=percentile_ms(first, 0.99),
    )


class LoadGenerator:
    """The other end of the process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compare.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def crowd(self, address: Address, kind: Kind, *, connections: int, seconds: float, requests: int) -> Load:
        """Load from so many connections, until the time is over or so many requests were sent; all are awaited."""
        order = {"kind": kind, "connections": connections, "seconds": seconds, "requests": requests}
        return Load(**self._order({**order, "to": asdict(address)})[0])

    def in_turns(self, addresses: Sequence[Address], kind: Kind, requests: int) -> list[Load]:
        """So many requests to each address over a connection each, one after another, in turn."""
        order = {"kind": kind, "requests": requests, "turns": [asdict(address) for address in addresses]}
        return [Load(**load) for load in self._order(order)]

    def _order(self, order: Mapping[str, Any]) -> list[dict[str, Any]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended")
        loads: list[dict[str, Any]] = json.loads(line)
        return loads

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


async def _crowd(order: Mapping[str, Any]) -> list[Outcome]:
    crowd = Crowd(Address(**order["to"]), Kind(order["kind"]), order["seconds"], order["requests"])
    return [await crowd.run(order["connections"])]


def _in_turns(order: Mapping[str, Any]) -> list[Outcome]:
    with ExitStack() as stack:
        singles = [stack.enter_context(Single(Address(**to), Kind(order["kind"]))) for to in order["turns"]]
        for _ in range(order["requests"]):
            for single in singles:
                single.ask()
        return [single.outcome for single in singles]


def main() -> NoReturn:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            order = json.loads(line)
            outcomes = _in_turns(order) if "turns" in order else runner.run(_crowd(order))
            print(json.dumps([asdict(summary(outcome)) for outcome in outcomes]), flush=True)
    raise SystemExit(0)


if __name__ == "__main__":
    main()
