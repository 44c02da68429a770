"""What a change costs or saves: CPU of this checkout's gateway for each request, beside that of another commit's.

python -m benchmarks.side_by_side --against HEAD~3 --kinds plain,burst,large --rounds 8 --seconds 2

Both gateways, with everything on, run at the same time on the same core, each under the same load of its own, and share
whatever the machine does: where two runs one after the other differ by half, a ratio here is good to 1 or 2 %. Each of
them serves half of what it could alone, and finds colder caches: a change that fills the caches may look good here and
be bad for one gateway that has the core. With `--alone` they take turns instead, which needs a quiet machine. A process
also differs from the next one of the same code, by up to 5 %, as its memory happens to lie: `--starts` says how many of
each are to be asked. The other commit's code runs with this checkout's dependencies.

Claim: a gateway beside its like costs the same, within 5 %.
Short: --against HEAD --kinds plain --rounds 3 --seconds 1
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.compare import targets
from benchmarks.compare.answers import Kind
from benchmarks.compare.load import LoadGenerator
from benchmarks.compare.machine import Processors, running_on
from benchmarks.compare.running import Running, upstream
from benchmarks.processes import cpu_seconds

_WARM_SECONDS = 1.5
_MANY = 10**9
_Costs = list[list[float]]  # of a round, of the other commit's and of this one's; in microseconds


@dataclass(frozen=True)
class Side:
    """One of the two, and who asks it."""

    running: Running
    load: LoadGenerator

    def cost_us(self, kind: Kind, connections: int, seconds: float) -> float:
        """CPU for each right answer. Raises RuntimeError for a wrong one."""
        before = cpu_seconds(self.running.pid)
        load = self.load.crowd(self.running.address, kind, connections=connections, seconds=seconds, requests=_MANY)
        if load.wrong or not load.answered:
            raise RuntimeError(f"{self.running.name}: {load.wrong} wrong answers, {load.example}")
        return (cpu_seconds(self.running.pid) - before) / load.answered * 1e6


def _code_of(revision: str, directory: Path) -> Path:
    """The repository as it was then."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", revision], cwd=targets.ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def _side(
    name: str, code: Path, upstream_url: str, stack: ExitStack, processor: int, settings: Mapping[str, str]
) -> Side:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="side-")))
    around = targets.Surroundings(upstream_url, directory, directory, stack)
    target = targets.llmgateway(around)
    target = replace(target, environment={**target.environment, **settings, "PYTHONPATH": str(code)})
    running = Running(name, target, around.port, directory, processor)
    stack.callback(running.stop)
    running.start()
    return Side(running, stack.enter_context(closing(LoadGenerator())))


def _round(sides: Sequence[Side], kind: Kind, chosen: argparse.Namespace, number: int) -> list[float]:
    """What each of them costs."""

    def cost_us(side: Side) -> float:
        return side.cost_us(kind, chosen.connections, chosen.seconds)

    if chosen.alone:
        one, other = sides if number % 2 else reversed(sides)
        costs = {one.running.name: cost_us(one), other.running.name: cost_us(other)}
        return [costs[side.running.name] for side in sides]
    with ThreadPoolExecutor(len(sides)) as together:
        return list(together.map(cost_us, sides))


def _measure(up_url: str, codes: Mapping[str, Path], processor: int, chosen: argparse.Namespace) -> list[_Costs]:
    """One process of each."""
    with ExitStack() as stack:
        settings = dict(each.split("=", 1) for each in chosen.set)
        sides = [_side(name, code, up_url, stack, processor, settings) for name, code in codes.items()]
        costs = []
        for kind in map(Kind, chosen.kinds.split(",")):
            for side in sides:
                side.cost_us(kind, chosen.connections, _WARM_SECONDS)
            costs.append([_round(sides, kind, chosen, number) for number in range(chosen.rounds)])
        return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD", help="a commit [HEAD]")
    parser.add_argument("--kinds", default="plain,burst,large", help=f"of: {', '.join(Kind)}")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8, help="for each start [8]")
    parser.add_argument("--starts", type=int, default=1, help="of both gateways [1]")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of both gateways' settings")
    parser.add_argument("--alone", action="store_true", help="one after the other, not at the same time")
    chosen = parser.parse_args()
    processors = Processors.available()
    with ExitStack() as stack:
        stack.enter_context(running_on(processors.others))
        up = stack.enter_context(upstream())
        other = _code_of(chosen.against, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="code-"))))
        codes = {chosen.against: other, "this": targets.ROOT}
        starts = [_measure(up.url, codes, processors.gateway, chosen) for _ in range(chosen.starts)]
    for place, kind in enumerate(chosen.kinds.split(",")):
        rounds = [costs for start in starts for costs in start[place]]
        before, after = (statistics.median(costs) for costs in zip(*rounds, strict=True))
        ratios = sorted(this / that for that, this in rounds)
        print(
            f"{kind}: {before:.0f} us at {chosen.against}, {after:.0f} us here: median of paired ratios "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
