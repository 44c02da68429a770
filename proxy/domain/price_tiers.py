"""Prices that hold for some requests of a model only: for long ones, or for those of a service tier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import exact_text

MOST_TIERS: Final = 32
_USUAL: Final = ("auto", "default", "standard", "standard_only")
_FAST, _PRIORITY = "fast", "priority"  # what OpenAI's requests may call it, and what its answers do
SERVICE_TIER: Final = rf"^(?!(?:{'|'.join((*_USUAL, _FAST))})$)[a-z0-9][a-z0-9._-]{{0,63}}$(?!\n)"
SERVICE_TIER_IN_WORDS: Final = (
    "what answers call it, in lower case, like flex or priority (not fast); the default one has the model's own prices"
)
_MOST_TOKENS: Final = 10**12


@dataclass(frozen=True, slots=True)
class PriceTier:
    """Prices for requests with more input tokens than `above_input_tokens`, for those of `service_tier`, or both.

    All tokens of such a request cost that, and its input is all of it, what came from a cache included: so bill those
    who have such prices (OpenAI, Google, xAI). `service_tier` is where the request was served, not what it wished for.
    `prices` are by their names in ModelPricing; what is not among them costs what it costs in other requests. Raises
    InvalidValue for a tier that makes no difference.
    """

    prices: Mapping[str, Decimal]
    above_input_tokens: int | None = None
    service_tier: str | None = None

    def __post_init__(self) -> None:
        if self.above_input_tokens is None and self.service_tier is None:
            raise InvalidValue("A price tier needs above_input_tokens, service_tier, or both")
        if self.above_input_tokens is not None and not 0 < self.above_input_tokens <= _MOST_TOKENS:
            raise InvalidValue(f"above_input_tokens must be from 1 to {_MOST_TOKENS}")
        if self.service_tier is not None and not re.search(SERVICE_TIER, self.service_tier):
            raise InvalidValue(f"service_tier must be {SERVICE_TIER_IN_WORDS}")
        if not self.prices:
            raise InvalidValue("A price tier needs at least one price")

    @property
    def conditions(self) -> tuple[int | None, str | None]:
        """What tells a tier from the others of its model."""
        return self.above_input_tokens, self.service_tier

    def holds_for(self, input_tokens: int, service_tier: str | None) -> bool:
        """Whether a request of so many input tokens, served in that tier, has these prices."""
        is_long = self.above_input_tokens is None or input_tokens > self.above_input_tokens
        return is_long and (self.service_tier is None or self.service_tier == service_tier)

    def told(self) -> Mapping[str, int | str]:
        """For people and tables, as JSON has it: conditions, and prices with all their digits."""
        conditions = {"above_input_tokens": self.above_input_tokens, "service_tier": self.service_tier}
        prices = {name: exact_text(price) for name, price in self.prices.items()}
        return {**{name: value for name, value in conditions.items() if value is not None}, **prices}

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> PriceTier:
        """The same way back. Raises InvalidValue for what is none."""
        prices = dict(told)
        above, service_tier = prices.pop("above_input_tokens", None), prices.pop("service_tier", None)
        try:
            return cls({name: Decimal(price) for name, price in prices.items()}, above, service_tier)
        except (TypeError, InvalidOperation) as problem:
            raise InvalidValue(f"A price tier cannot be read: {problem!r}") from problem


def by_precedence(tiers: Iterable[PriceTier]) -> Sequence[PriceTier]:
    """The first that holds for a request is the one that counts: both conditions, then a service tier, then length.

    Raises InvalidValue for two with the same conditions, and for too many.
    """
    ordered = sorted(tiers, key=_precedence)
    if len(ordered) > MOST_TIERS:
        raise InvalidValue(f"A model cannot have more than {MOST_TIERS} price tiers")
    if len({tier.conditions for tier in ordered}) < len(ordered):
        raise InvalidValue("Two price tiers have the same above_input_tokens and service_tier")
    return ordered


def priced_service_tier(name: str | None) -> str | None:
    """By which name prices may know a tier that a request or an answer names; None for the usual one."""
    name = (name or "").lower()
    if not name or name in _USUAL:
        return None
    return _PRIORITY if name == _FAST else name


def _precedence(tier: PriceTier) -> tuple[bool, int]:
    return tier.service_tier is None, -(tier.above_input_tokens or 0)
