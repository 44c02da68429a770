"""Prices and capabilities, which LiteLLM keeps in litellm_params and model_info."""

from __future__ import annotations

from decimal import Decimal

from proxy.config.litellm.source import Section, number
from proxy.domain.errors import InvalidValue
from proxy.domain.pricing import check_price, per_1m_tokens

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
_CAPABILITIES = {
    "vision": "supports_vision",
    "audio": "supports_audio_input",
    "files": "supports_pdf_input",
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
}


def prices_of(params: Section, info: Section) -> dict[str, Decimal] | None:
    """The prices for a million tokens; None if there are none, or not those of both input and output."""
    prices: dict[str, Decimal] = {}
    for theirs, ours in _PRICES.items():
        section = params if theirs in params else info
        price = _price(section, theirs)
        if price is not None:
            prices[ours] = price
    if not prices:
        return None
    if not {"input_usd_per_1m_tokens", "output_usd_per_1m_tokens"} <= prices.keys():
        for theirs in _PRICES:
            for section in (params, info):
                section.lose(theirs, "prices need both input_cost_per_token and output_cost_per_token")
        return None
    return prices


def _price(section: Section, key: str) -> Decimal | None:
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
