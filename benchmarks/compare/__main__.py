"""The command; see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

import benchmarks.compare
from benchmarks.compare import peers, targets
from benchmarks.compare.load import LoadGenerator
from benchmarks.compare.machine import Processors, description, running_on
from benchmarks.compare.measuring import Bench, Plan, Result, say
from benchmarks.compare.peers import NotMeasuredError
from benchmarks.compare.report import Report
from benchmarks.compare.running import Running, upstream

_QUICK = Plan(
    rounds=1, seconds=1, warm_seconds=0.8, settle_seconds=0.3, turns=50, starts=1, soak_requests=5000, soak_seconds=2
)
_TARGETS = {
    "aiohttp-bare": targets.aiohttp_bare,
    "aiohttp-pglog": targets.aiohttp_pglog,
    "llmgateway": targets.llmgateway,
    "ferrogw": peers.ferrogw,
    "rolter": peers.rolter,
    "portkey": peers.portkey,
    "litellm": peers.litellm,
}
_ROWS_WITHIN_SECONDS = 30
_OURS = ("aiohttp-bare", "aiohttp-pglog", "llmgateway")


def count(text: str) -> int:
    """A number of things. Without any there is nothing to compare."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def duration(text: str) -> float:
    """Seconds."""
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be 0 or more seconds, not {text}")
    return number


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command, unless others are given."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=benchmarks.compare.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--targets", default=",".join(_OURS), help=f"all, or of: {', '.join(_TARGETS)}")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "llmgateway-benchmarks",
        help="where other gateways are installed",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's figures, too")
    parser.add_argument("--quick", action="store_true", help="a look: one short round")
    for one in fields(Plan):
        kind = count if isinstance(one.default, int) else duration
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, help=f"[{one.default}]")
    return parser.parse_args(given)


def plan_of(chosen: argparse.Namespace) -> Plan:
    base = asdict(_QUICK if chosen.quick else Plan())
    return Plan(
        **{name: value if getattr(chosen, name) is None else getattr(chosen, name) for name, value in base.items()}
    )


async def rows_of(database_url: str, table: str, expected: int) -> int:
    """How many rows there are, as soon as all are there, or after half a minute: they are written a little later."""
    connection = await asyncpg.connect(database_url)
    try:
        ends = time.monotonic() + _ROWS_WITHIN_SECONDS
        while True:
            rows = int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
            if rows >= expected or time.monotonic() > ends:
                return rows
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


def check_books(running: Running, result: Result) -> None:
    """Whether there is a row for each answer, of those who keep books."""
    result.answered = running.answered
    if running.target.database is None:
        return
    url = running.target.database.get_uri()
    result.rows = asyncio.run(rows_of(url, running.target.rows_in, running.answered))
    if result.rows != result.answered:
        result.complaints.append(f"{result.rows} rows for {result.answered} answers")


def compare(names: Sequence[str], cache: Path, plan: Plan) -> Report:
    """Measures them, all up at once. What cannot be installed or started is told in the report."""
    report = Report(description(), f"{datetime.now(UTC):%Y-%m-%d}", plan)
    processors = Processors.available()
    with ExitStack() as stack:
        stack.enter_context(running_on(processors.others))
        up = stack.enter_context(upstream())
        load = stack.enter_context(closing(LoadGenerator()))
        bench, pairs = Bench(load, up, processors, plan), []
        for name in names:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"compare-{name}-")))
            around = targets.Surroundings(up.url, cache, directory, stack)
            say(f"{name}: starting")
            try:
                target = _TARGETS[name](around)
                running = Running(name, target, around.port, directory, processors.gateway)
                stack.callback(running.stop)
                result = Result(target.version, target.does)
                bench.start(running, result)
                bench.warm(running, result)
            except (NotMeasuredError, RuntimeError, OSError) as error:
                report.not_measured[name] = str(error)
                continue
            report.results[name] = result
            pairs.append((running, result))
        bench.rounds(pairs)
        for running, result in pairs:
            bench.soak(running, result)
            check_books(running, result)
    return report


def main() -> None:
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that targets and databases end, too
    names = list(_TARGETS) if chosen.targets == "all" else chosen.targets.split(",")
    report = compare(names, chosen.cache, plan_of(chosen))
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(report), indent=1))
    print(report.markdown())
    raise SystemExit(1 if report.not_measured or any(one.complaints for one in report.results.values()) else 0)


if __name__ == "__main__":
    main()
