"""What a gateway of several workers says of its health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.application.siblings import NoSiblings, merged
from proxy.infrastructure.siblings import SharedDirectory


def report(status: str = "ok", *problems: str, in_flight: int = 1) -> dict[str, Any]:
    load = {"in_flight": in_flight, "most_in_flight": 10}
    return {"status": status, "problems": list(problems), "uptime_seconds": 1.0, "load": load, "ledger": {}}


class Known(NoSiblings):
    """Siblings that say this."""

    def __init__(self, reports: Sequence[Mapping[str, Any]], missing: int = 0) -> None:
        self._reports = reports
        self._missing = missing

    def reports(self) -> Sequence[Mapping[str, Any]]:
        return self._reports

    def missing(self) -> int:
        return self._missing


def test_alone_it_says_what_it_knows() -> None:
    assert merged(report(), NoSiblings(), 1) == report()


def test_the_worst_of_all_counts_and_problems_are_told_once() -> None:
    others = [{"pid": 7, **report("degraded", "a", "b", in_flight=2)}, {"pid": 5, **report("unavailable", "a")}]
    told = merged(report("ok", "a"), Known(others), 6)
    assert told["status"] == "unavailable"
    assert told["problems"] == ["a", "b"]
    assert told["load"]["in_flight"] == 4
    assert [each["pid"] for each in told["workers"]] == [5, 6, 7]


def test_who_is_not_heard_of_is_missed() -> None:
    told = merged(report(), Known([], missing=1), 6)
    assert (told["status"], told["problems"]) == ("degraded", ["1 of 2 workers are not heard of"])


@pytest.fixture
def drained() -> list[tuple[str, bool]]:
    return []


async def test_files_tell_of_others_and_of_what_holds_for_all(tmp_path: Path, drained: list[tuple[str, bool]]) -> None:
    mine = SharedDirectory(tmp_path, 2, lambda name, is_drained: drained.append((name, is_drained)))
    await mine.exchange(report())
    assert (list(mine.reports()), mine.missing()) == ([], 1)
    (tmp_path / f"{os.getppid()}.json").write_text('{"pid": 1, "status": "ok"}')
    (tmp_path / "4999999.json").write_text('{"pid": 4999999}')  # of nobody that lives
    await mine.drain("a", is_drained=True)
    await mine.exchange(report())
    assert ([each["pid"] for each in mine.reports()], mine.missing()) == ([1], 0)
    assert not (tmp_path / "4999999.json").exists()
    assert drained == [("a", True)]
    await mine.drain("a", is_drained=False)
    await mine.exchange(report())
    assert drained == [("a", True), ("a", False)]
    await asyncio.to_thread(mine.leave)
    assert not (tmp_path / f"{os.getpid()}.json").exists()
