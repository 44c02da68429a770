"""Which workers end and which are missing, while new ones take the places of old ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """What is to be done now: who is to be told to end, and how many are to be started."""

    ends: list[int] = field(default_factory=list)
    missing: int = 0


class Succession:
    """Old workers end when as many new ones serve as there should be, and not before.

    Once one of the new ones serves, another that fails is replaced. If none of them is left, the old ones stay.
    """

    def __init__(self) -> None:
        self._old: set[int] = set()

    @property
    def is_under_way(self) -> bool:
        """Whether there are workers that wait for others to take their places."""
        return bool(self._old)

    def begin(self, old: Collection[int]) -> None:
        """These are to end; the new ones are started by whoever says so."""
        self._old = set(old)

    def look(self, workers: Sequence[int], serving: Collection[int], wanted: int) -> Step:
        """`workers` are those that nobody has told to end, the oldest first, and `serving` those of them that serve."""
        self._old.intersection_update(workers)
        new = [each for each in workers if each not in self._old]
        if not new:
            self._old.clear()
            new = list(workers)
        stay = new[-wanted:]
        if len(stay) == wanted and all(each in serving for each in stay):
            self._old.clear()
            return Step(ends=[each for each in workers if each not in stay])
        are_waited_for = not any(each in serving for each in new)
        return Step(missing=max(0, wanted - len(new) - (len(self._old) if are_waited_for else 0)))
