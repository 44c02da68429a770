"""Doing something again and again in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

_GRACE_SECONDS = 2.0
_JITTER = 0.1


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
async def now_and_then(
    step: Callable[[], Awaitable[float | None]],
    every_seconds: float,
    name: str,
    *,
    first_within_seconds: float,
    jitter: Callable[[], float],
) -> AsyncIterator[None]:
    """Runs `step` for the first time within `first_within_seconds`, then about every so often, until the end.

    What it returns, if anything, is the longest pause that may follow. `jitter` is a random number from 0 to 1, so that
    many gateways do not ask at once.
    """
    is_first = True
    pause = jitter() * min(first_within_seconds, every_seconds)

    async def step_but_at_once() -> None:
        nonlocal is_first, pause
        if is_first:
            is_first = False
            return
        pause = every_seconds * (1 - _JITTER + 2 * _JITTER * jitter())
        longest = await step()
        if longest is not None:
            pause = min(pause, longest)

    async with repeating(step_but_at_once, lambda: pause, name):
        yield


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
