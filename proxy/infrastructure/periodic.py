"""Doing something again and again in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

_GRACE_SECONDS = 2.0


@asynccontextmanager
async def repeating(
    step: Callable[[], Awaitable[None]], interval_seconds: Callable[[], float], name: str
) -> AsyncIterator[None]:
    """Runs `step` at once and then after each interval, until the end; `step` handles its own errors.

    A step that runs at the end is given a moment to finish: a cancelled SQLite query leaves a thread behind that
    reports to an event loop that is no more.
    """
    ending = asyncio.Event()

    async def repeat() -> None:
        while not ending.is_set():
            await step()
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_seconds()):
                    await ending.wait()

    task = asyncio.create_task(repeat(), name=name)
    try:
        yield
    finally:
        ending.set()
        await asyncio.wait([task], timeout=_GRACE_SECONDS)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def once(moment: asyncio.Event, context: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
    """Enters the context in the background when the moment has come, and leaves it at the end if it was entered."""
    ending = asyncio.Event()

    async def run() -> None:
        await moment.wait()
        async with context:
            await ending.wait()

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        ending.set()
        if not moment.is_set():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
