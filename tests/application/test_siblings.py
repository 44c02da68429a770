"""What a gateway of several workers says of its health."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass
class Told:
    """What a worker was told to do."""

    drained: list[tuple[str, bool]] = field(default_factory=list)
    reloads: int = 0

    async def reload(self) -> None:
        self.reloads += 1

    def drain(self, name: str, is_drained: bool) -> None:
        self.drained.append((name, is_drained))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def mine(tmp_path: Path, told: Told) -> SharedDirectory:
    return SharedDirectory(tmp_path, 2, told.drain, told.reload, answer_seconds=0.3)


def other(directory: Path, order: int, version: str, *problems: str) -> None:
    """A worker that lives says this of itself."""
    said = {"pid": 1, "order": order, "configuration": {"version": version, "problems": problems}}
    (directory / f"{os.getppid()}.json").write_text(json.dumps(said))


async def test_files_tell_of_others_and_of_what_holds_for_all(
    tmp_path: Path, mine: SharedDirectory, told: Told
) -> None:
    await mine.exchange(report)
    assert (list(mine.reports()), mine.missing()) == ([], 1)
    other(tmp_path, 0, "one")
    (tmp_path / "4999999.json").write_text('{"pid": 4999999}')  # of nobody that lives
    await mine.drain("a", is_drained=True)
    await mine.exchange(report)
    assert ([each["pid"] for each in mine.reports()], mine.missing()) == ([1], 0)
    assert not (tmp_path / "4999999.json").exists()
    assert told.drained == [("a", True)]
    await mine.drain("a", is_drained=False)
    await mine.exchange(report)
    assert told.drained == [("a", True), ("a", False)]
    await asyncio.to_thread(mine.leave)
    assert not (tmp_path / f"{os.getpid()}.json").exists()


async def test_a_reload_is_answered_for_by_the_others(tmp_path: Path, mine: SharedDirectory, told: Told) -> None:
    assert list(await mine.reload()) == []
    other(tmp_path, 1, "old")
    late = await mine.reload()
    assert late == [
        {"pid": 1, "took_it": False, "version": "old", "problems": ["it did not answer within 0.3 s"]},
    ]
    asked = asyncio.create_task(mine.reload())
    await asyncio.sleep(0.05)
    other(tmp_path, 3, "new")
    assert await asked == [{"pid": 1, "took_it": True, "version": "new", "problems": []}]
    other(tmp_path, 4, "new", "line 1: no")
    assert await mine.reload() == [{"pid": 1, "took_it": False, "version": "new", "problems": ["line 1: no"]}]
    await mine.exchange(report)
    assert told.reloads == 0  # who gives an order has done it


async def test_a_reload_that_another_asks_for_is_done_once_and_told(
    tmp_path: Path, mine: SharedDirectory, told: Told
) -> None:
    theirs = SharedDirectory(tmp_path, 2, told.drain, told.reload)
    await theirs.reload()
    for _ in range(2):
        await mine.exchange(report)
    assert told.reloads == 1
    assert json.loads((tmp_path / f"{os.getpid()}.json").read_text())["order"] == 1


async def test_what_is_done_once_is_done_by_the_first(tmp_path: Path, mine: SharedDirectory, told: Told) -> None:
    theirs = SharedDirectory(tmp_path, 2, told.drain, told.reload)
    assert [await each.is_first("a") for each in (mine, theirs, mine)] == [True, False, False]
    assert await theirs.is_first("b")
