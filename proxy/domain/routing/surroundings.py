"""What plans depend on beside the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from proxy.domain.catalog import Catalog
from proxy.domain.pricing import ModelPricing
from proxy.domain.routing.auto import ModelPolicy
from proxy.domain.routing.state import States


class Surroundings(NamedTuple):
    """The catalog, how its deployments fare, and chance.

    `prices` gives the table for deployments without a price of their own, by the model's name; it is asked only when
    it matters. `random` gives numbers in [0, 1).
    """

    catalog: Catalog
    policy: ModelPolicy
    states: States
    prices: Callable[[], Mapping[str, ModelPricing]]
    random: Callable[[], float]
