"""Long work on the event loop in short pieces: whoever is served meanwhile waits for a piece of it, not for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

_ITEMS: Final = 25  # for a row of the ledger half a millisecond, about what a request takes

Item = TypeVar("Item")


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """The items; after each few others have a turn of the loop."""
    for number, item in enumerate(items, 1):
        yield item
        if not number % _ITEMS:
            await asyncio.sleep(0)
