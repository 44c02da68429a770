"""Who has a key, over several processes."""

from __future__ import annotations

from typing import Protocol

from proxy.infrastructure.idempotency.records import Answer, Claim, Record, State


class RegistryLost(Exception):  # it is lost
    """The registry cannot be asked. `is_taken`: but somebody is known to have the key, or to have had its answer."""

    def __init__(self, reason: str, *, is_taken: bool = False) -> None:
        super().__init__(reason)
        self.is_taken = is_taken


class KeyRegistry(Protocol):
    """Keys and answers for `KEPT_SECONDS`. A key is its claimant's until `finish`, or until his process is no more."""

    mode: str
    """One word for the health report."""

    trouble: str
    """For people: what it means that the registry is lost."""

    async def claim(self, name: str, claim: Claim, awaited: bytes | None) -> Record | None:
        """None: the key is the caller's from now on. Else who has it, or what he got.

        A record that is `FAILED` is for those alone who waited for its token; to others the key is free.
        Raises RegistryLost.
        """
        ...

    async def finish(self, name: str, claim: Claim, state: State, answer: Answer | None) -> None:
        """The request has ended. `RUNNING` as state gives the key back. Raises RegistryLost."""
        ...

    async def keep(self) -> None:
        """To be called each second: keeps what is claimed, and forgets what need not be kept. Raises RegistryLost."""
        ...

    async def probe(self) -> None:
        """Raises RegistryLost if it cannot be asked."""
        ...

    async def close(self) -> None: ...
