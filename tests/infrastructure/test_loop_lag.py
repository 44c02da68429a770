"""How long turns of the event loop take, as it is measured beside the work."""

from __future__ import annotations

import asyncio
import time

from proxy.infrastructure.loop_lag import LoopLag, measuring

_BLOCKED_SECONDS = 0.03


async def test_long_turns_are_seen_one_after_the_other_and_quiet_ones_seldom_looked_at() -> None:
    turns: list[float] = []
    with measuring(LoopLag(lambda turn, _now: turns.append(turn))):
        await asyncio.sleep(0.5)
        quiet = len(turns)
        for _ in range(20):
            time.sleep(_BLOCKED_SECONDS)  # noqa: ASYNC251  # a callback that takes long
            await asyncio.sleep(0)
        busy = turns[quiet:]
    assert 0 < quiet < 20  # 25 of 20 ms would be there
    assert sum(turn >= _BLOCKED_SECONDS for turn in busy) >= 3
    seen = len(turns)
    await asyncio.sleep(0.15)
    assert len(turns) == seen
