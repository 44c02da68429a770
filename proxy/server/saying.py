"""What is said at the start, to whoever watches."""

from __future__ import annotations

import select
import sys
from contextlib import suppress

_STDERR = 2


def say(words: str) -> None:
    """On stderr. Where that is closed, full or not read, it is lost as log lines are: no reason not to serve."""
    if sys.stderr is not None:
        with suppress(OSError):
            if select.select([], [_STDERR], [], 0)[1]:
                print(words, file=sys.stderr, flush=True)  # noqa: T201
