"""RateLevels: what is left of rate limits, where this process alone knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.application.allowances import AppliedLimit
from proxy.domain.rate_limits import NO_TOKENS
from proxy.infrastructure.limits.local import LocalCounts
from proxy.infrastructure.limits.wanted import wanted_of

_PLACES = "concurrent_requests"


def levels_of(limits: Sequence[AppliedLimit], counts: LocalCounts) -> list[Mapping[str, int]]:
    """For each limit what is left of it, by the names of RateLimit's members."""
    levels: list[Mapping[str, int]] = []
    for applied in limits:
        wanted = wanted_of([applied], NO_TOKENS)
        left = {f"{take.dimension}_per_minute": reading.remaining for take, reading in counts.read(wanted.takes)}
        if wanted.places:
            left[_PLACES] = min(counts.free(place) for place in wanted.places)
        levels.append(left)
    return levels
