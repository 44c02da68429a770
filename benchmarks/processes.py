"""Another process's CPU, memory and core, as Linux tells."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time so far of the threads that live, finer than the hundredths of a second of `stat`."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def waited_seconds(pid: int) -> float:
    """Time for which the main thread could have run and something else did."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def resident_kib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KIB


def children(pid: int) -> list[int]:
    """Its child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    """How many it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def on_core(core: int, pid: int = 0) -> None:
    """Binds a process to a core, if there is such a one; 0 is this process."""
    if core < (os.cpu_count() or 1):
        os.sched_setaffinity(pid, {core})
