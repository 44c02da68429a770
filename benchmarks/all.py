"""Runs every benchmark in short form, one after another, and says which reached its target.

python -m benchmarks.all [NAME ...]

A benchmark that has no short form is said not to have been run. The exit code is 1 if one failed or took too long.
Short runs show that a benchmark still works; figures to quote come from whole runs on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.index import benchmarks

_AT_MOST_SECONDS = 600.0


def run(name: str, arguments: Sequence[str]) -> bool:
    """Whether it ended well and in time."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    print(f"\n## {name} {' '.join(arguments)}", flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True)
    try:
        code = process.wait(_AT_MOST_SECONDS)
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a benchmark has started and not ended
        process.wait()
    said = "well" if code == 0 else f"with exit code {code}" if code > 0 else "too late"
    print(f"ended {said} after {time.perf_counter() - began:.0f} s", flush=True)
    return code == 0


def main() -> None:
    found = {one.name: one for one in benchmarks()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    chosen = parser.parse_args().names or list(found)
    if unknown := set(chosen) - set(found):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    results = {f"{name} {' '.join(short)}": run(name, short) for name in chosen for short in found[name].short_runs}
    print("\n## All")
    for what, is_well in results.items():
        print(f"{'well  ' if is_well else 'FAILED'} {what}")
    for name in chosen:
        if not found[name].short_runs:
            print(f"NOT RUN {name}: it has no short form")
    raise SystemExit(0 if all(results.values()) else 1)


if __name__ == "__main__":
    main()
