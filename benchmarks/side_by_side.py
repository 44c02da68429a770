"""What a change costs or saves: CPU of this checkout's gateway for each request, beside that of another commit's.

python -m benchmarks.side_by_side --against HEAD~3 --kinds plain,burst,large --rounds 8 --seconds 2

Both gateways, with everything on, run at the same time on the same core, each under the same load of its own, and share
whatever the machine does: where two runs one after the other differ by half, a ratio here is good to 1 or 2 %. Each of
them finds colder caches than it would alone. The other commit's code runs with this checkout's dependencies.

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
from collections.abc import Sequence
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


def _side(name: str, code: Path, upstream_url: str, stack: ExitStack, processor: int) -> Side:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="side-")))
    around = targets.Surroundings(upstream_url, directory, directory, stack)
    target = targets.llmgateway(around)
    target = replace(target, environment={**target.environment, "PYTHONPATH": str(code)})
    running = Running(name, target, around.port, directory, processor)
    stack.callback(running.stop)
    running.start()
    return Side(running, stack.enter_context(closing(LoadGenerator())))


def _round(sides: Sequence[Side], kind: Kind, connections: int, seconds: float) -> list[float]:
    with ThreadPoolExecutor(len(sides)) as together:
        return list(together.map(lambda side: side.cost_us(kind, connections, seconds), sides))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="HEAD", help="a commit [HEAD]")
    parser.add_argument("--kinds", default="plain,burst,large", help=f"of: {', '.join(Kind)}")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    processors = Processors.available()
    with ExitStack() as stack:
        stack.enter_context(running_on(processors.others))
        up = stack.enter_context(upstream())
        other = _code_of(chosen.against, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="code-"))))
        sides = [
            _side(name, code, up.url, stack, processors.gateway)
            for name, code in ((chosen.against, other), ("this", targets.ROOT))
        ]
        for kind in map(Kind, chosen.kinds.split(",")):
            _round(sides, kind, chosen.connections, _WARM_SECONDS)
            rounds = [_round(sides, kind, chosen.connections, chosen.seconds) for _ in range(chosen.rounds)]
            before, after = (statistics.median(costs) for costs in zip(*rounds, strict=True))
            ratios = sorted(this / that for that, this in rounds)
            print(
                f"{kind}: {before:.0f} us at {chosen.against}, {after:.0f} us here: median of paired ratios "
                f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
