"""Prices as exact numbers: nothing of them is ever rounded."""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Final

from proxy.domain.errors import InvalidValue

ONE_MILLIONTH: Final = -6  # as an exponent
_ABSURD_PRICE: Final = Decimal(1_000_000_000)
_MOST_DECIMALS: Final = 30
_LAST_DECIMAL: Final = Decimal(1).scaleb(-_MOST_DECIMALS)
# 64-bit counts times prices of at most 39 digits: nothing is ever rounded at this precision.
EXACT: Final = Context(prec=120)


def check_price(name: str, price: Decimal) -> None:
    """Raises InvalidValue, with the name, for what cannot be a price."""
    if not price.is_finite():
        raise InvalidValue(f"{name} must be a finite number")
    if price < 0:
        raise InvalidValue(f"{name} cannot be negative")
    if price >= _ABSURD_PRICE:
        raise InvalidValue(f"{name} must be less than {_ABSURD_PRICE}")
    if price and (price.adjusted() < -_MOST_DECIMALS or not _has_few_decimals(price)):
        raise InvalidValue(f"{name} must not have more than {_MOST_DECIMALS} decimals")


def _has_few_decimals(price: Decimal) -> bool:
    return price == EXACT.quantize(price, _LAST_DECIMAL)


def per_1m_tokens(usd_per_token: Decimal) -> Decimal:
    """The same price for a million tokens, exact."""
    return EXACT.scaleb(usd_per_token, -ONE_MILLIONTH)


def exact_text(price: Decimal) -> str:
    """All digits of a price, without an exponent and without trailing zeros."""
    return f"{EXACT.normalize(price):f}"
