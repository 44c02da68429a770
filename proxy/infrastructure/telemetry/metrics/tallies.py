"""Sums that are kept beside Prometheus's objects, and handed to them once for many requests.

An `inc` with its `labels` costs 1-3 µs, most in multiprocess mode; a request counts in a dozen metrics.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Histogram

OTHER: Final = "other"
_WORD = re.compile(r"\w{1,64}", re.ASCII)

Labels = tuple[str, ...]


class BatchHistogram(Histogram):
    """A histogram that takes many observations in one go, which the library's own does not."""

    def observe_many(self, counts: Sequence[int], total: float) -> None:
        """`counts` has one number for each bucket, the one without an upper bound last; `total` is the values' sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Tally:
    """What is still to be added to a counter."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._sums: dict[Labels, float] = {}
        self._children: dict[Labels, Counter] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        self._sums[labels] = self._sums.get(labels, 0) + amount

    def flush(self) -> None:
        sums, self._sums = self._sums, {}
        for labels, amount in sums.items():
            child = self._children.get(labels)
            if child is None:
                child = self._children[labels] = self._counter.labels(*labels)
            child.inc(amount)


class Spread:
    """What is still to be observed by a histogram with those upper bounds."""

    def __init__(self, histogram: BatchHistogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._seen: dict[Labels, tuple[list[int], list[float]]] = {}
        self._children: dict[Labels, BatchHistogram] = {}

    def observe(self, labels: Labels, value: float) -> None:
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = ([0] * (len(self._bounds) + 1), [0.0])
        seen[0][bisect_left(self._bounds, value)] += 1
        seen[1][0] += value

    def flush(self) -> None:
        seen, self._seen = self._seen, {}
        for labels, (counts, (total,)) in seen.items():
            child = self._children.get(labels)
            if child is None:
                child = self._children[labels] = self._histogram.labels(*labels) if labels else self._histogram
            child.observe_many(counts, total)


class KnownValues:
    """The values that a label may have: the first so many that there were. All others are `other`.

    Series are never forgotten by who stores them, so a configuration that changes every day must not make new ones for
    ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value

    def word(self, value: str) -> str:
        """The same for words of which nobody promises that they are short and plain."""
        return self(value) if _WORD.fullmatch(value) else OTHER
