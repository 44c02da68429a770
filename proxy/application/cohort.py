"""Requests that are under way at the same time go through each stage of their way together.

A request runs through some 400 functions. Their code, and what they touch, fill the processor's caches: when one
request is through, what the next needs at its beginning has to be fetched again, and so on. Where several are ready,
each stops at the end of a stage and lets the others come as far, and what the first one had to fetch is there for all.
That is cohort scheduling (J. Larus and M. Parkes, "Using Cohort Scheduling to Enhance Server Performance", USENIX
2002).

Who is alone gains nothing by stopping, and is not to: ask `has_several` first.
"""

from __future__ import annotations

import types
from collections.abc import Generator
from typing import Final

_SEVERAL: Final = 6  # with fewer, stopping costs more than it saves
_REMEMBERED: Final = 64  # requests, more or less


class Cohort:
    """The requests that one process works on. The server says who begin together; their stages are told here.

    `outward` counts who has stopped on the way to an upstream since the server looked: while there are such, those who
    began last are not through, and whoever begins now would be behind them.
    """

    __slots__ = ("_usual", "has_several", "outward")

    def __init__(self) -> None:
        self.has_several = False
        self.outward = 0
        self._usual = 0.0

    def began(self, count: int) -> None:
        """So many began together. Large cohorts weigh more: what counts is with how many others a request goes."""
        self._usual += (count - self._usual) * min(1.0, count / _REMEMBERED)
        self.has_several = self._usual >= _SEVERAL

    @types.coroutine
    def on_its_way(self) -> Generator[None]:
        """At the end of a stage before the upstream is called: the event loop's others come first, as with `sleep(0)`.

        Whoever stops may be cancelled there.
        """
        self.outward += 1
        yield

    @types.coroutine
    def on_its_way_back(self) -> Generator[None]:
        """The same for a stage behind the call."""
        yield
