"""Prices and capabilities, which LiteLLM keeps in litellm_params and model_info."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from proxy.config.litellm.source import Section, number
from proxy.domain.errors import InvalidValue
from proxy.domain.exact_prices import check_price, per_1m_tokens

_PRICES = {
    "input_cost_per_token": "input_usd_per_1m_tokens",
    "output_cost_per_token": "output_usd_per_1m_tokens",
    "cache_read_input_token_cost": "cached_input_usd_per_1m_tokens",
    "cache_creation_input_token_cost": "cache_write_usd_per_1m_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_usd_per_1m_tokens",
    "input_cost_per_audio_token": "audio_input_usd_per_1m_tokens",
    "input_cost_per_image_token": "image_input_usd_per_1m_tokens",
    "output_cost_per_reasoning_token": "reasoning_usd_per_1m_tokens",
    "output_cost_per_audio_token": "audio_output_usd_per_1m_tokens",
    "output_cost_per_image_token": "image_output_usd_per_1m_tokens",
}
_PRICE = re.compile(
    rf"(?P<price>{'|'.join(sorted(_PRICES, key=len, reverse=True))})"
    r"(?:_(?P<before>flex|priority))?(?:_above_(?P<thousands>[1-9][0-9]{0,6})k_tokens)?(?:_(?P<behind>flex|priority))?"
)
_CAPABILITIES = {
    "vision": "supports_vision",
    "audio": "supports_audio_input",
    "files": "supports_pdf_input",
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
}


def prices_of(params: Section, info: Section) -> dict[str, Any] | None:
    """The prices for a million tokens; None if there are none, or not those of both input and output."""
    given = {theirs: price for theirs in _named(params, info) if (price := _price(params, info, theirs)) is not None}
    prices: dict[str, Any] = {ours: given[theirs] for theirs, ours in _PRICES.items() if theirs in given}
    if not given:
        return None
    if not {"input_usd_per_1m_tokens", "output_usd_per_1m_tokens"} <= prices.keys():
        for theirs in given:
            for section in (params, info):
                section.lose(theirs, "prices need both input_cost_per_token and output_cost_per_token")
        return None
    tiers = _tiers(given)
    return {**prices, "tiers": tiers} if tiers else prices


def _named(params: Section, info: Section) -> list[str]:
    """All prices that are there; LiteLLM's own file has those of tiers as null where there are none."""
    names = dict.fromkeys([*_PRICES, *params.data, *info.data])
    return [name for name in names if isinstance(name, str) and _PRICE.fullmatch(name)]


def _tiers(given: Mapping[str, Decimal]) -> list[dict[str, Any]]:
    """Prices whose names say for which requests they are, like `input_cost_per_token_above_200k_tokens_priority`."""
    tiers: dict[tuple[str | None, str | None], dict[str, Any]] = {}
    for theirs, price in given.items():
        named = _PRICE.fullmatch(theirs)
        if named is None or theirs in _PRICES:
            continue
        thousands, service_tier = named["thousands"], named["before"] or named["behind"]
        tier = tiers.setdefault((thousands, service_tier), {})
        if thousands is not None:
            tier["above_input_tokens"] = int(thousands) * 1000
        if service_tier is not None:
            tier["service_tier"] = service_tier
        tier[_PRICES[named["price"]]] = price
    return list(tiers.values())


def _price(params: Section, info: Section, key: str) -> Decimal | None:
    section = params if key in params else info
    given = number(section.take(key))
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        section.lose(key, "is no number, so it cannot be converted to a price for a million tokens")
        return None
    try:
        price = per_1m_tokens(Decimal(given))
        check_price(key, price)
    except (InvalidValue, ArithmeticError):
        section.lose(key, "is no price")
        return None
    return price


def capabilities_of(info: Section) -> list[str] | None:
    """What a model can do, if it is said that it cannot do something; None if nothing is known to be missing."""
    flags = {name: info.take(flag) for name, flag in _CAPABILITIES.items()}
    if not any(flag is False for flag in flags.values()):
        return None
    return [name for name, flag in flags.items() if flag is not False]
