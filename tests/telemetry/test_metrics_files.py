"""What processes have counted in files of one directory, after they have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prometheus_client import generate_latest

from proxy.infrastructure.telemetry.metrics.workers import merged
from tests.telemetry.scraping import Scrape

COUNTING = """
from prometheus_client import Counter, Gauge, Histogram

Counter("asked", "Questions.", ["model"]).labels("one").inc(3)
Histogram("lasted", "Seconds.", buckets=(1, 2)).observe(1.5)
Gauge("running", "Now.", multiprocess_mode="livesum").set(1)
"""
PROCESSES = 8


def a_process_counts(directory: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
    subprocess.run([sys.executable, "-c", COUNTING], env=environment, timeout=60, check=True)


def page(directory: Path) -> Scrape:
    return Scrape(generate_latest(merged(directory)).decode())


def test_what_ended_processes_counted_becomes_one_file_of_each_kind(tmp_path: Path) -> None:
    for number in (1, 2):
        for _ in range(2):
            a_process_counts(tmp_path)
        for _ in range(2):  # the first one clears up
            told = page(tmp_path)
            assert told.value("asked_total", model="one") == 6 * number
            assert told.value("lasted_bucket", le="1.0") == 0
            assert told.value("lasted_bucket", le="2.0") == told.value("lasted_count") == 2 * number
            assert told.value("lasted_sum") == 3 * number
            assert not told.of("running")
        assert {path.name for path in tmp_path.glob("*.db")} == {"counter_ended.db", "histogram_ended.db"}


def test_a_file_that_has_just_been_made_is_passed_over(tmp_path: Path) -> None:
    """Of a process that goes on, and of one that is dead."""
    a_process_counts(tmp_path)
    for process in (os.getpid(), 2**22 + 1):
        (tmp_path / f"counter_{process}.db").touch()
    for _ in range(2):
        assert page(tmp_path).value("asked_total") == 3


def test_pages_that_are_made_meanwhile_are_right(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as threads:
        counting = [threads.submit(a_process_counts, tmp_path) for _ in range(PROCESSES)]

        def reading() -> list[float]:
            found = []
            while not all(each.done() for each in counting):
                found.append(page(tmp_path).value("asked_total"))
            return found

        readers = [threads.submit(reading) for _ in range(2)]
        for reader in readers:
            found = reader.result()
            assert found == sorted(found)
    assert page(tmp_path).value("asked_total") == 3 * PROCESSES
