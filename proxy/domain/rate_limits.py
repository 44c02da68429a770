"""Rate limits: how much within a minute, and how many requests at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple
from uuid import UUID

from proxy.domain.access.scopes import Subject
from proxy.domain.errors import InvalidValue


class Priority(IntEnum):
    """Who waits or is refused first under pressure: the lowest."""

    LOW = 0
    NORMAL = 1
    HIGH = 2

    __hash__ = int.__hash__  # an enum's own is a Python function, and those who wait are put by their priority


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """What a subject may use; None is unlimited. Tokens are input, output and both together."""

    id: UUID
    subject: Subject
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__[2:]:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidValue(f"{name} must be at least 1")


class TokenEstimate(NamedTuple):
    """What a request may use at most, known before it is sent.

    `has_media` is whether some of its input may be images or audio, which may have prices of their own; so may the
    requests of a `service_tier`, which is None for the usual one.
    """

    input_tokens: int
    output_tokens: int
    has_media: bool = False
    service_tier: str | None = None


NO_TOKENS: Final = TokenEstimate(0, 0)
