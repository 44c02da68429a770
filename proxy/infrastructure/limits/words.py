"""What clients are told of limits: OpenAI's headers, and its sentence for a limit that is reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from proxy.domain.access.scopes import Subject
from proxy.domain.errors import RateLimited
from proxy.infrastructure.limits.wanted import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, Place, Take
from proxy.infrastructure.limits.windows import Reading

Seen = Sequence[tuple[Take, Reading]]
LOCAL_HEADER: Final = "x-gateway-limits"
_HEADERS: Final = {  # by dimension; clients know tokens of one kind only
    dimension: tuple(f"x-ratelimit-{what}-{name}" for what in ("limit", "remaining", "reset"))
    for dimension, name in (
        (REQUESTS, REQUESTS),
        (TOKENS, TOKENS),
        (INPUT_TOKENS, TOKENS),
        (OUTPUT_TOKENS, TOKENS),
    )
}
_PLACE_RETRY_SECONDS = 1.0
_REMEMBERED_SECONDS = 128  # a window is told of in every answer, and is over within two minutes
_NAMES: Final = {
    "requests": "requests per min (RPM)",
    "tokens": "tokens per min (TPM)",
    "input_tokens": "input tokens per min",
    "output_tokens": "output tokens per min",
}


def duration(seconds: float) -> str:
    """As OpenAI writes it: 120ms, 1s, 1.5s, 6m0s, 1h0m0s. Rounded up: nobody comes back too early."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:  # noqa: PLR2004
        return f"{max(0, milliseconds)}ms"
    if milliseconds < 60_000:  # noqa: PLR2004
        return f"{milliseconds / 1000:g}s"
    return _long_duration(-(-milliseconds // 1000))


@lru_cache(_REMEMBERED_SECONDS)
def _long_duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def headers_of(takes: Sequence[Take], readings: Sequence[Reading], *, is_local: bool) -> dict[str, str]:
    """Of the requests' tightest limit, and of the tokens'. `is_local` when Valkey should have been asked."""
    if len(takes) == 1:
        headers = _told_of(takes[0], readings[0], readings[0].remaining)
    else:
        headers = {}
        tightest: dict[tuple[str, ...], int] = {}
        for take, reading in zip(takes, readings, strict=True):
            names, remaining = _HEADERS[take.dimension], reading.remaining
            if remaining < tightest.get(names, math.inf):
                tightest[names] = remaining
                headers.update(_told_of(take, reading, remaining))
    if is_local:
        headers[LOCAL_HEADER] = "local"
    return headers


def _told_of(take: Take, reading: Reading, remaining: int) -> dict[str, str]:
    return told(take, reading.limit, remaining, reading.reset_seconds)


def told(take: Take, limit: int, remaining: int, reset_seconds: float) -> dict[str, str]:
    """The three headers of one window."""
    limit_name, remaining_name, reset_name = _HEADERS[take.dimension]
    return {limit_name: str(limit), remaining_name: str(remaining), reset_name: duration(reset_seconds)}


def refusal(seen: Seen, *, is_local: bool) -> RateLimited:
    """At least one of them has no room. The one that takes longest is told: the others are free before it."""
    waits = [(reading.wait_seconds(_cost(take, reading)), take, reading) for take, reading in seen]
    seconds, take, reading = max(waits, key=lambda wait: wait[0])
    message = (
        f"Rate limit reached for {_named(take.subject)} on {_NAMES[take.dimension]}: Limit {reading.limit}, "
        f"Used {math.ceil(reading.used - 1e-6)}, Requested {take.estimate}. Please try again in {duration(seconds)}."
    )
    if take.estimate > reading.limit:
        message += (
            f" The request alone may use {take.estimate} tokens, more than the limit: it is let in only when nothing "
            "else was used. Lower max_tokens (max_completion_tokens), or shorten the prompt."
        )
    return RateLimited(message, seconds, _headers_seen(seen, is_local=is_local), take.subject.scope.value)


def _cost(take: Take, reading: Reading) -> int:
    return min(take.estimate, reading.limit)


def no_place(places: Iterable[Place], seen: Seen, reason: str, *, is_local: bool) -> RateLimited:
    """A limit on concurrent requests is used up; `reason` says why the request does not wait (any longer)."""
    place = next(iter(places))
    message = (
        f"Rate limit reached for {_named(place.subject)} on concurrent requests: Limit {place.limit}, "
        f"Requested 1; {reason}. Please try again in {duration(_PLACE_RETRY_SECONDS)}."
    )
    return RateLimited(message, _PLACE_RETRY_SECONDS, _headers_seen(seen, is_local=is_local), place.subject.scope.value)


def _headers_seen(seen: Seen, *, is_local: bool) -> dict[str, str]:
    return headers_of([take for take, _ in seen], [reading for _, reading in seen], is_local=is_local)


def _named(subject: Subject) -> str:
    if not subject.id:
        return f"the {subject.scope.value}"
    return f"{subject.scope.value.replace('_', ' ')} '{subject.id}'"
