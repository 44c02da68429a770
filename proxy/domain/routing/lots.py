"""Drawing an order at random, or by a session's key: always the same for a session, and by weight over all of them.

Each deployment gets a time drawn from the exponential distribution whose rate is its weight; the earliest is first.
Then each is first in proportion to its weight. With draws that are a hash of session and deployment this is weighted
rendezvous hashing: when a deployment leaves, only those sessions move whose first it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b

_BYTES = 8
_SPARE_BITS = 11  # a float holds 53 of 64
_STEPS = 2**53

Draw = Callable[[str], float]
"""From a deployment's name to a number in [0, 1)."""


def at_random(random: Callable[[], float]) -> Draw:
    """A new draw each time."""
    return lambda _name: random()


def of_session(session: str) -> Draw:
    """The same draw each time, in every process."""
    seed = blake2b(session.encode(errors="surrogatepass"), digest_size=_BYTES)

    def draw(name: str) -> float:
        lot = seed.copy()
        lot.update(b"\0" + name.encode(errors="surrogatepass"))
        return (int.from_bytes(lot.digest()) >> _SPARE_BITS) / _STEPS

    return draw


def arrival(draw: float, weight: float) -> float:
    """When the one with that draw and weight comes; those without weight come as if all weighed the same."""
    return -math.log1p(-draw) / (weight or 1.0)
