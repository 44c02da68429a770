"""The options of `llmgateway prices set`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import click

from proxy.cli.moments import moment
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import check_price
from proxy.domain.price_tiers import PriceTier, by_precedence

_MOST_TOKENS: Final = 2**31 - 1
_PRICES: Final = {
    "input": ("input_cost_per_1m_tokens", "Per 1M input tokens."),
    "output": ("output_cost_per_1m_tokens", "Per 1M output tokens."),
    "cached-input": ("cached_input_cost_per_1m_tokens", "Per 1M read from a cache."),
    "cache-write": ("cache_write_cost_per_1m_tokens", "Per 1M written to a cache."),
    "cache-write-1h": ("cache_write_1h_cost_per_1m_tokens", "Per 1M written to a cache for an hour."),
    "audio-input": ("audio_input_cost_per_1m_tokens", "Per 1M input tokens of audio."),
    "image-input": ("image_input_cost_per_1m_tokens", "Per 1M input tokens of images."),
    "reasoning": ("reasoning_cost_per_1m_tokens", "Per 1M reasoning tokens."),
    "audio-output": ("audio_output_cost_per_1m_tokens", "Per 1M output tokens of audio."),
    "image-output": ("image_output_cost_per_1m_tokens", "Per 1M output tokens of images."),
    "request-fee": ("request_fee_usd", "USD for each request."),
}
_REQUIRED: Final = ("input", "output")
_ABOVE, _SERVICE_TIER = "above-input-tokens", "service-tier"


def _usd(_context: click.Context, _option: click.Parameter, value: str | None) -> Decimal | None:
    """USD, exact; a price that cannot be is refused, and click names its option."""
    return None if value is None else _price(value)


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
        check_price("the price", price)
    except InvalidOperation:
        raise click.BadParameter(f"{text!r} is not a number.") from None
    except InvalidValue as problem:
        raise click.BadParameter(f"{text!r}: {problem}.") from None
    return price


class _Tier(click.ParamType[PriceTier]):
    """Conditions and prices as `name=value`, by the names of the options."""

    name = "tier"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PriceTier:
        if isinstance(value, PriceTier):
            return value
        above: int | None = None
        service_tier: str | None = None
        prices: dict[str, Decimal] = {}
        names: set[str] = set()
        for part in value.split(","):
            name, _, given = (side.strip() for side in part.partition("="))
            name = name.replace("_", "-")
            if name in names:
                self.fail(f"{value!r}: {name} is given twice.", param, ctx)
            names.add(name)
            if name == _ABOVE:
                above = click.INT.convert(given, param, ctx)
            elif name == _SERVICE_TIER:
                service_tier = given
            elif name in _PRICES:
                prices[_PRICES[name][0]] = _price(given)
            else:
                self.fail(f"{part!r}: expected one of {_ABOVE}, {_SERVICE_TIER}, {', '.join(_PRICES)}.", param, ctx)
        try:
            return PriceTier(prices, above, service_tier)
        except InvalidValue as problem:
            self.fail(f"{value!r}: {problem}.", param, ctx)


def distinct(tiers: Sequence[PriceTier]) -> Sequence[PriceTier]:
    """Raises BadParameter for two tiers that hold for the same requests."""
    try:
        return by_precedence(tiers)
    except InvalidValue as problem:
        raise click.BadParameter(f"{problem}.", param_hint="--tier") from None


def price_options(command: Callable[..., None]) -> Callable[..., None]:
    """The prices by their names in ModelPricing, `tiers`, `context` in tokens, and `valid_from`."""
    options = [
        click.option(f"--{name}", field, metavar="USD", callback=_usd, required=name in _REQUIRED, help=words)
        for name, (field, words) in _PRICES.items()
    ]
    options += [
        click.option(
            "--tier",
            "tiers",
            type=_Tier(),
            multiple=True,
            metavar="TIER",
            help=f"Other prices for some requests, like {_ABOVE}=200000,input=2.5,output=15 or "
            f"{_SERVICE_TIER}=flex,input=0.6; may be given several times.",
        ),
        click.option(
            "--context", type=click.IntRange(1, _MOST_TOKENS), help="Context window in tokens; default: as it was."
        ),
        click.option(
            "--from",
            "valid_from",
            metavar="TIME",
            callback=moment,
            help="When it begins, ISO 8601, UTC if not said. [default: now]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command
