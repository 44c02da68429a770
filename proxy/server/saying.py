"""What is said at the start, to whoever watches."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(words: str) -> None:
    """On stderr. Where that is closed, or on a full disk, it is lost as log lines are: no reason not to serve."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(words, file=sys.stderr, flush=True)  # noqa: T201
