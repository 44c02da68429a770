"""The other workers of a gateway on this machine: what they say of themselves, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Siblings(Protocol):
    """Reading waits for nothing: it is what was last heard, at most some seconds ago."""

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """The health reports of the other workers, each with its `pid`."""
        ...

    def expected(self) -> int:
        """How many other workers there should be."""
        ...

    async def drain(self, deployment: str, *, is_drained: bool) -> None:
        """Have all of them, also those that start later, leave a deployment alone, or ask it again."""
        ...

    async def reload(self) -> Sequence[Mapping[str, Any]]:
        """Have all of them load the configuration, and wait some seconds at most for what comes of it.

        Of each its `pid`, whether it `took_it`, the `version` that it has now, and the `problems` if it did not.
        """
        ...

    async def is_first(self, event: str) -> bool:
        """Whether none of them has asked this of the same event before, so that only one does what is done once."""
        ...


class NoSiblings:
    """For a gateway of one process."""

    def reports(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def expected(self) -> int:
        return 0

    async def drain(self, deployment: str, *, is_drained: bool) -> None:
        """Nobody to tell."""

    async def reload(self) -> Sequence[Mapping[str, Any]]:
        return ()

    async def is_first(self, event: str) -> bool:  # noqa: ARG002  # there is nobody else
        return True
