"""All that a limiter does in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.periodic import repeating


async def _forever(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await step()


@asynccontextmanager
async def limiting(
    limiter: CountingLimiter, look_seconds: float = 1.0, renew_seconds: float = 10.0
) -> AsyncIterator[None]:
    """Runs all that the limiter does in the background."""
    await limiter.begin()
    steps = [limiter.serve_waiting()] + ([_forever(limiter.tell)] if limiter.falls_back else [])
    tasks = [asyncio.create_task(step, name="rate limits") for step in steps]
    try:
        async with (
            repeating(limiter.look, lambda: look_seconds, "valkey probe"),
            repeating(limiter.renew, lambda: renew_seconds, "valkey leases"),
        ):
            yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await limiter.say_goodbye()
