"""RatePass: what one request has taken of its limits, until it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from proxy.infrastructure.limits.local import Counted
from proxy.infrastructure.limits.wanted import Wanted, really_used
from proxy.infrastructure.limits.windows import Reading
from proxy.infrastructure.limits.words import headers_of


class Granting(Protocol):
    """Who lets in, and is told when it is over."""

    falls_back: bool

    def left(self, granted: Pass, used: Sequence[int]) -> None: ...


class Pass:
    """RatePass: what one request has taken. `shared` are the windows in Valkey, if it was asked.

    `untold` is what Valkey is to be told of instead, when it is back.
    """

    __slots__ = ("_counted", "_headers", "_is_open", "_limiter", "local", "member", "shared", "untold", "wanted")

    def __init__(
        self,
        limiter: Granting,
        wanted: Wanted,
        member: str,
        counted: Sequence[Counted] | None,
        local: Sequence[Reading],
        shared: Sequence[Reading] | None,
    ) -> None:
        self._limiter = limiter
        self.wanted = wanted
        self.member = member
        self._counted = counted
        self.local = local
        self.shared = shared
        self.untold: Sequence[Counted] = ()
        self._headers: Mapping[str, str] | None = None
        self._is_open = True

    @property
    def is_counted(self) -> bool:
        """One request was counted, and one it was."""
        wanted = self.wanted
        return not (wanted.may_differ or wanted.places or self._limiter.falls_back)

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            readings = self.local if self.shared is None else self.shared
            is_local = self._limiter.falls_back and self.shared is None
            self._headers = headers_of(self.wanted.takes, readings, is_local=is_local)
        return self._headers

    @property
    def counted(self) -> Sequence[Counted]:
        """What was counted here of each window; the readings tell it where none but this process counts."""
        if self._counted is not None:
            return self._counted
        of = zip(self.local, self.wanted.takes, strict=True)
        return [(reading.started, min(take.estimate, reading.limit)) for reading, take in of]

    def leave(self, input_tokens: int, output_tokens: int) -> None:
        """Only the first time counts."""
        if self._is_open:
            self._is_open = False
            self._limiter.left(self, [really_used(take, input_tokens, output_tokens) for take in self.wanted.takes])

    def give_back(self) -> None:
        """The request did not run: as if it had not come."""
        if self._is_open:
            self._is_open = False
            self._limiter.left(self, [0 for _ in self.wanted.takes])
