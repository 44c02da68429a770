"""What a request wants of its limits: so much of each window, and a place of each limit on concurrent requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.application.allowances import AppliedLimit
from proxy.domain.access.scopes import Scope, Subject
from proxy.domain.rate_limits import TokenEstimate

REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
INPUT_TOKENS: Final = "input_tokens"
OUTPUT_TOKENS: Final = "output_tokens"
_MAY_WAIT: Final = frozenset({Scope.GATEWAY, Scope.TEAM, Scope.MODEL})


class Take(NamedTuple):
    """So much of one window. `estimate` is what the request may use; a limit that is smaller is taken whole."""

    key: str
    subject: Subject
    dimension: str
    limit: int
    estimate: int

    @property
    def cost(self) -> int:
        return min(self.estimate, self.limit)


class Place(NamedTuple):
    """One of the requests that may run at once."""

    key: str
    subject: Subject
    limit: int


class Wanted(NamedTuple):
    """All that one request wants. `may_differ`: what it really uses of the windows is known at its end only.

    `is_single`: it is one window, and no place.
    """

    takes: Sequence[Take]
    places: Sequence[Place]
    may_differ: bool = True
    is_single: bool = False

    @property
    def place_keys(self) -> tuple[str, ...]:
        return tuple(place.key for place in self.places)


def may_wait_for(place: Place) -> bool:
    """Whether requests wait when it is taken: what many share is free again soon; one caller's own excess is not."""
    return place.subject.scope in _MAY_WAIT


def wanted_of(limits: Sequence[AppliedLimit], estimate: TokenEstimate) -> Wanted:
    takes: list[Take] = []
    places: list[Place] = []
    for applied in limits:
        limit, subject = applied.limit, applied.subject
        key = f"{limit.id.hex}:{subject.id}"
        if limit.requests_per_minute is not None:
            takes.append(Take(key + ":r", subject, REQUESTS, limit.requests_per_minute, 1))
        if limit.tokens_per_minute is not None:
            both = estimate.input_tokens + estimate.output_tokens
            takes.append(Take(key + ":t", subject, TOKENS, limit.tokens_per_minute, both))
        if limit.input_tokens_per_minute is not None:
            takes.append(Take(key + ":i", subject, INPUT_TOKENS, limit.input_tokens_per_minute, estimate.input_tokens))
        if limit.output_tokens_per_minute is not None:
            takes.append(
                Take(key + ":o", subject, OUTPUT_TOKENS, limit.output_tokens_per_minute, estimate.output_tokens)
            )
        if limit.concurrent_requests is not None:
            places.append(Place(key + ":c", subject, limit.concurrent_requests))
    may_differ = any(take.dimension != REQUESTS for take in takes)
    return Wanted(takes, places, may_differ, is_single=len(takes) == 1 and not places)


def really_used(take: Take, input_tokens: int, output_tokens: int) -> int:
    """What the request has used of it in the end."""
    match take.dimension:
        case "tokens":
            return input_tokens + output_tokens
        case "input_tokens":
            return input_tokens
        case "output_tokens":
            return output_tokens
        case _:
            return take.cost
