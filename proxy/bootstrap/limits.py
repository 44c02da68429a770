"""Composing the rate limiter: Valkey where it is configured, and this process's share of what is local."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.passes import Pass
from proxy.infrastructure.limits.room import WaitingRoom
from proxy.infrastructure.limits.running import limiting
from proxy.infrastructure.limits.shared import SharedCounts
from proxy.infrastructure.limits.shares import share_of
from proxy.infrastructure.periodic import repeating
from proxy.settings import Settings

_logger = logging.getLogger(__name__)
_SHARE_SECONDS = 1.0


@asynccontextmanager
async def rate_limiter(
    settings: Settings, spool: Path, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[CountingLimiter]:
    """`spool` is this process's directory: those beside it tell of the processes that limits are divided among."""
    shared: SharedCounts | None = None
    if settings.llmgateway_valkey_url is not None:
        from proxy.bootstrap.valkey import shared_counts  # noqa: PLC0415  # 8 MB that are for Valkey alone

        shared = shared_counts(settings, settings.llmgateway_valkey_url)
    room: WaitingRoom[Pass] = WaitingRoom(settings.limit_queue_length, settings.limit_queue_seconds)
    limiter = CountingLimiter(LocalCounts(clock), shared, room)

    async def divide() -> None:
        limiter.divide(await asyncio.to_thread(share_of, spool.parent, spool.name))

    await divide()
    async with limiting(limiter), repeating(divide, lambda: _SHARE_SECONDS, "limits' shares"):
        level = logging.WARNING if limiter.trouble else logging.INFO
        _logger.log(level, limiter.description, extra=limiter.refusal)
        yield limiter
