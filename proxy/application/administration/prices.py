"""Setting prices, and noting who did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from proxy.application.administration.administration import Actor, Administration
from proxy.application.ports import PriceHistory
from proxy.domain.exact_prices import exact_text
from proxy.domain.pricing import PRICES, ModelPricing, PriceChanges

_KIND = "prices"
_MOST_NAMED = 500


async def nobody_uses_them() -> None:
    """Where no gateway runs, nobody has prices in memory."""


async def set_price(
    administration: Administration,
    prices: PriceHistory,
    actor: Actor,
    price: ModelPricing,
    take_up: Callable[[], Awaitable[None]] = nobody_uses_them,
) -> bool:
    """Whether it was set: not if the model has a price from that very moment on already.

    `take_up` is called then: whoever has prices in memory reads them again.
    """
    before = await prices.get_by_model(price.model.value)
    if not await prices.set(price, price.valid_from):
        return False
    await take_up()
    views = None if before is None else price_view(before), price_view(price)
    await administration.note(actor, "set", _KIND, price.model.value, *views)
    return True


async def note_sync(administration: Administration, actor: Actor, changes: PriceChanges) -> None:
    """What somebody's sync has changed, if anything."""
    if changes.added or changes.changed:
        after = {"added": changes.added[:_MOST_NAMED], "changed": changes.changed[:_MOST_NAMED]}
        await administration.note(actor, "sync", _KIND, "all", None, after)


def price_view(price: ModelPricing) -> Mapping[str, Any]:
    """For answers and for the audit log, as JSON has it."""

    def text(name: str) -> str | None:
        value: Decimal | None = getattr(price, name)
        return None if value is None else exact_text(value)

    return {
        "model": price.model.value,
        **{name: text(name) for name in PRICES},
        "tiers": [tier.told() for tier in price.tiers],
        "max_context_tokens": price.max_context_tokens,
        "valid_from": price.valid_from.isoformat(),
        "source": price.source.value,
    }
