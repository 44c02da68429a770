"""Random rows of the last days, priced as the gateway prices them and, beside it, by hand."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from uuid import UUID

from proxy.domain.chat import Usage
from proxy.domain.pricing import EPOCH, ModelPricing
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.values import CostAmount, ModelName, TokenCount

_KEYS = (None, UUID(int=1), UUID(int=2))
_TEAMS = (None, UUID(int=3), UUID(int=4))
_ORGANISATION = UUID(int=5)
_SPAN = timedelta(days=6)
_PICODOLLAR = Decimal("1e-12")
# Below 2,000 USD a float, which is what SQLite keeps, is nearest to the picodollar that was written.
_COSTS_USD = ("0", "0.000000000001", "0.1", "1999.999999999999")
_SHARES_OF_COSTS = (30, 40, 20, 1, 1)

# Some are so fine that a request's cost has more decimals than a row; the last one has all there are, and a fee.
PRICES = (
    ModelPricing(
        ModelName("z-ai/glm-4.6"),
        "Test",
        Decimal("0.6"),
        Decimal("2.2"),
        None,
        EPOCH,
        cached_input_cost_per_1m_tokens=Decimal("0.11"),
    ),
    ModelPricing(
        ModelName("vendor/fine"),
        "Test",
        Decimal("0.0123456789"),
        Decimal("0.9876543211"),
        None,
        EPOCH,
        cached_input_cost_per_1m_tokens=Decimal("0.0012345678"),
    ),
    ModelPricing(ModelName("vendor/tiny"), "Test", Decimal("0.0001"), Decimal("0.0003"), None, EPOCH),
    ModelPricing(
        ModelName("vendor/dear"),
        "Test",
        Decimal(150),
        Decimal(600),
        None,
        EPOCH,
        cached_input_cost_per_1m_tokens=Decimal("75.5"),
        cache_write_cost_per_1m_tokens=Decimal("187.5"),
        audio_input_cost_per_1m_tokens=Decimal(200),
        image_input_cost_per_1m_tokens=Decimal(180),
        reasoning_cost_per_1m_tokens=Decimal("700.000000001"),
        request_fee_usd=Decimal("0.000000000005"),
    ),
)


class Rows:
    """Seeded random rows of the last days, up to now; each with its cost as the books must have it."""

    def __init__(self, seed: int, now: datetime) -> None:
        self._chance = random.Random(seed)
        self._now = now
        self.start = now - _SPAN

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> tuple[RequestLog, Decimal | None]:
        chance = self._chance
        price = chance.choice(PRICES)
        usage = self._usage()
        source = chance.choices(list(CostSource), (6, 6, 2, 1))[0]
        billed = self._billed() if source is CostSource.REPORTED else None
        is_priced = source is CostSource.COMPUTED or (billed is not None and chance.random() < 0.5)
        estimate = price.cost_of(usage) if is_priced else None
        row = RequestLog(
            model=price.model,
            provider_name=chance.choice(("OpenRouter", "Other", "Demo")),
            timestamp=self.start + chance.random() * (self._now - self.start),
            status=chance.choice(list(RequestStatus)),
            input_tokens=TokenCount(usage.input_tokens),
            output_tokens=TokenCount(usage.output_tokens),
            usage_source=UsageSource.ESTIMATED if chance.random() < 0.2 else UsageSource.REPORTED,
            estimated_cost=estimate,
            reported_cost=None if billed is None else CostAmount(billed),
            cost_source=source,
            response_time_ms=int(10 ** chance.uniform(0, 5)),
            key_id=chance.choice(_KEYS),
            team_id=chance.choice(_TEAMS),
            organisation_id=_ORGANISATION,
        )
        if billed is not None:
            return row, billed
        return row, _rounded(cost_by_hand(price, usage)) if is_priced else None

    def _billed(self) -> Decimal:
        chance = self._chance
        kind = chance.choices(range(len(_SHARES_OF_COSTS)), _SHARES_OF_COSTS)[0]
        if kind == 0:
            return Decimal(chance.choice(_COSTS_USD))
        digits = (12, 10, 14, 15)[kind - 1]
        return Decimal(chance.randrange(10**digits)).scaleb(-12)

    def _usage(self) -> Usage:
        """Details are parts of their totals, as upstreams have it."""
        chance = self._chance
        tokens, output = int(10 ** chance.uniform(0, 6)), int(10 ** chance.uniform(0, 5))
        parts = [chance.choice((None, 0, chance.randrange(tokens // 4 + 1))) for _ in range(4)]
        return Usage(
            tokens,
            output,
            cached_tokens=parts[0],
            cache_write_tokens=parts[1],
            audio_tokens=parts[2],
            image_tokens=parts[3],
            reasoning_tokens=chance.choice((None, chance.randrange(output + 1))),
        )


def cost_by_hand(price: ModelPricing, usage: Usage) -> Decimal:
    """What the tokens cost, as one would add it up on paper."""
    base, answer = price.input_cost_per_1m_tokens, price.output_cost_per_1m_tokens
    dearer = (
        (usage.cached_tokens, price.cached_input_cost_per_1m_tokens, base),
        (usage.cache_write_tokens, price.cache_write_cost_per_1m_tokens, base),
        (usage.audio_tokens, price.audio_input_cost_per_1m_tokens, base),
        (usage.image_tokens, price.image_input_cost_per_1m_tokens, base),
        (usage.reasoning_tokens, price.reasoning_cost_per_1m_tokens, answer),
    )
    with localcontext(prec=60):
        millionths = usage.input_tokens * base + usage.output_tokens * answer
        millionths += sum((count or 0) * (own - normal) for count, own, normal in dearer if own is not None)
        return millionths / 10**6 + (price.request_fee_usd or 0)


def _rounded(cost_usd: Decimal) -> Decimal:
    """To a row's 12 decimals."""
    with localcontext(prec=60):
        return cost_usd.quantize(_PICODOLLAR, ROUND_HALF_EVEN)
