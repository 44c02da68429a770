"""What the workers of a gateway say to each other."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.infrastructure.siblings import SharedDirectory


def report() -> dict[str, Any]:
    return {"status": "ok"}


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
    assert (list(mine.reports()), mine.expected()) == ([], 1)
    other(tmp_path, 0, "one")
    (tmp_path / "4999999.json").write_text('{"pid": 4999999}')  # of nobody that lives
    await mine.drain("a", is_drained=True)
    await mine.exchange(report)
    assert [each["pid"] for each in mine.reports()] == [1]
    assert not (tmp_path / "4999999.json").exists()
    assert told.drained == [("a", True)]
    await mine.drain("a", is_drained=False)
    await mine.exchange(report)
    assert told.drained == [("a", True), ("a", False)]
    await asyncio.to_thread(mine.leave)
    assert not (tmp_path / f"{os.getpid()}.json").exists()


async def test_who_has_not_written_for_a_while_is_not_heard_of(tmp_path: Path, told: Told) -> None:
    now = time.time()
    mine = SharedDirectory(tmp_path, 2, told.drain, told.reload, clock=lambda: now)
    other(tmp_path, 0, "one")
    await mine.exchange(report)
    assert [each["pid"] for each in mine.reports()] == [1]
    now += 6  # and nothing was read since
    assert list(mine.reports()) == []
    await mine.exchange(report)
    assert list(mine.reports()) == []
    other(tmp_path, 0, "one")
    os.utime(tmp_path / f"{os.getppid()}.json", (now, now))
    await mine.exchange(report)
    assert [each["pid"] for each in mine.reports()] == [1]


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
