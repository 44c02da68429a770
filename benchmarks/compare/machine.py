"""The machine: which processor who runs on, what processes use, and what it is made of."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Processors:
    """The one that the gateways have for themselves, and the one for all else; the same if there is only one."""

    gateway: int
    others: int

    @classmethod
    def available(cls) -> Processors:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[1 % len(usable)])


@contextmanager
def running_on(processor: int) -> Iterator[None]:
    """What is done and started meanwhile runs on this processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants; none if it is gone."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and its descendants, those that have ended included."""
    seconds = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process and its descendants, in 10^6 bytes."""
    held = 0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            held += process.memory_info().rss
    return held / 1e6


def busy_seconds(processor: int) -> float:
    """How long a processor has been busy since the machine's start, for whomever."""
    times = psutil.cpu_times(percpu=True)[processor]
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def description() -> str:
    """Processor, memory, kernel and Python, in a line."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{model}, {os.cpu_count()} logical processors, {memory:.0f} GiB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}"
    )
