"""Long work does not keep the others waiting until its end."""

from __future__ import annotations

import asyncio

from proxy.infrastructure.turns import in_turns


async def test_others_have_turns_between_the_items() -> None:
    worked: list[int] = []
    seen: list[int] = []

    async def other() -> None:
        while len(worked) < 100:
            seen.append(len(worked))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for item in in_turns(range(100)):
        worked.append(item)
    await task
    assert worked == list(range(100))
    assert seen == [25, 50, 75]


async def test_nothing_gives_nothing() -> None:
    assert [item async for item in in_turns(list[int]())] == []
