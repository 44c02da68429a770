"""Targets and the upstream as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.compare.answers import Kind
from benchmarks.compare.client import Address, Single
from benchmarks.compare.machine import cpu_seconds, resident_megabytes, running_on, tree
from benchmarks.compare.targets import ROOT, Target

_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
)  # all else would make targets differ from machine to machine
_STARTS_WITHIN_SECONDS = 180.0
_STOPS_WITHIN_SECONDS = 15.0


class Upstream:
    """The upstream's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.compare.upstream"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def answered(self) -> int:
        """How many chat completions so far."""
        with urllib.request.urlopen(f"{self.url}/answered", timeout=30) as answer:  # noqa: S310  # our own
            return int(answer.read())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Running:
    """A target's process, on the gateways' processor. `answered` counts right answers."""

    def __init__(self, name: str, target: Target, port: int, directory: Path, processor: int) -> None:
        self.name, self.target = name, target
        self.address = Address(f"http://127.0.0.1:{port}/v1/chat/completions", target.headers)
        self.answered = 0
        self._directory, self._processor = directory, processor
        self._log = directory / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds to the first right answer. Raises RuntimeError without one, with the end of its log."""
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), **self.target.environment}
        with running_on(self._processor), self._log.open("ab") as log:
            began = time.perf_counter()
            self._process = self._spawn(environment, log.fileno())
        while time.perf_counter() < began + _STARTS_WITHIN_SECONDS and self._process.poll() is None:
            if self._answers():
                self.answered += 1
                return time.perf_counter() - began
            time.sleep(0.01)
        tail = self._log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{self.name} gave no right answer in {time.perf_counter() - began:.0f} s:\n{tail}")

    def _spawn(self, environment: Mapping[str, str], log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.target.command,
            cwd=self._directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        try:
            with Single(self.address, Kind.PLAIN) as single:
                single.ask()
        except OSError:
            return False
        return single.outcome.wrong == 0

    @property
    def pid(self) -> int:
        """Of the target's first process."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def database_cpu_seconds(self) -> float:
        """Of its database, 0 without one."""
        return cpu_seconds(self.target.database.get_pid() or 0) if self.target.database else 0.0

    def resident_megabytes(self) -> float:
        return resident_megabytes(self.pid)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whoever stays."""
        if self._process is None:
            return
        processes = tree(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, _STOPS_WITHIN_SECONDS)
        for process in alive:
            process.kill()
        self._process.wait()
        self._process = None


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Ended at the end."""
    process = Upstream()
    try:
        yield process
    finally:
        process.close()
