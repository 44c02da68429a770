"""From what a call's answer says of itself to the ledger's row: usage, cost, and where each comes from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from proxy.application.ports import PriceBook
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import UpstreamCall
from proxy.domain.budgets import picodollars
from proxy.domain.catalog import Deployment
from proxy.domain.chat import AnswerFacts, ChatRequest, Usage
from proxy.domain.price_tiers import PriceTier, priced_service_tier
from proxy.domain.pricing import ModelPricing, price_for
from proxy.domain.rate_limits import TokenEstimate
from proxy.domain.request_log import CostSource, UsageSource
from proxy.domain.routing import Candidate
from proxy.domain.values import CostAmount

_logger = logging.getLogger(__name__)
_MOST_RATES = 4096
_PER_TOKEN = Decimal(1).scaleb(-6)


class Turn:
    """A candidate, and the call that was made to it."""

    __slots__ = ("call", "candidate", "computed")

    def __init__(self, candidate: Candidate, call: UpstreamCall) -> None:
        self.candidate = candidate
        self.call = call
        self.computed: tuple[Usage, CostAmount | None] | None = None  # from a price: the same usage costs the same

    def facts(self) -> AnswerFacts:
        """What the answer says of itself, as far as it has come."""
        return self.call.answer.facts()

    def usage(
        self, request: ChatRequest, facts: AnswerFacts, *, was_generated: bool
    ) -> tuple[Usage | None, UsageSource]:
        """The usage as reported, else a marked estimate if something was generated, else nothing."""
        if facts.usage is not None:
            return facts.usage, UsageSource.REPORTED
        if not was_generated:
            return None, UsageSource.NONE
        tier = facts.service_tier
        usage = Usage(
            input_tokens=request.estimated_billed_input_tokens(),
            output_tokens=self.call.answer.estimated_output_tokens(),
            estimated=True,
            service_tier=request.service_tier() if tier is None else priced_service_tier(tier),
        )
        return usage, UsageSource.ESTIMATED


class Costs(NamedTuple):
    """What a turn cost; None is "not known"."""

    estimated: CostAmount | None = None
    reported: CostAmount | None = None
    source: CostSource = CostSource.NONE


NO_COSTS: Final = Costs()
_UNKNOWN_COSTS: Final = Costs(source=CostSource.UNKNOWN)


class _Rates(NamedTuple):
    """A price in whole picodollars, rounded up: for a token of input, for one of output, and for the request.

    Input may come from a cache or be written to one, output be reasoning, audio or images: the dearest price counts.
    `media` is for a token of input that may be of an image or of audio, too. `tiers` may hold for some requests.
    """

    price: ModelPricing | None
    input: int
    media: int
    output: int
    request: int
    window: int | None  # input tokens that the model takes at most
    tiers: Sequence[tuple[PriceTier, _Rates]] = ()

    @classmethod
    def of(cls, price: ModelPricing) -> _Rates:
        text = _dearest(
            price.input_cost_per_1m_tokens,
            price.cached_input_cost_per_1m_tokens,
            price.cache_write_cost_per_1m_tokens,
            price.cache_write_1h_cost_per_1m_tokens,
        )
        media = _dearest(text, price.image_input_cost_per_1m_tokens, price.audio_input_cost_per_1m_tokens)
        output = _dearest(
            price.output_cost_per_1m_tokens,
            price.reasoning_cost_per_1m_tokens,
            price.audio_output_cost_per_1m_tokens,
            price.image_output_cost_per_1m_tokens,
        )
        return cls(
            price,
            picodollars(text * _PER_TOKEN),
            picodollars(media * _PER_TOKEN),
            picodollars(output * _PER_TOKEN),
            picodollars(price.request_fee_usd or Decimal(0)),
            price.max_context_tokens,
            [(tier, cls.of(prices)) for tier, prices in price.by_tier],
        )

    def most(self, estimate: TokenEstimate) -> int:
        input_tokens, output_tokens, has_media, service_tier = estimate
        if self.window is not None and self.window < input_tokens:
            input_tokens = self.window
        rate = self.media if has_media else self.input
        most = input_tokens * rate + output_tokens * self.output + self.request
        for tier, rates in self.tiers:  # whether the wished one serves it, and how long it is, is known afterwards
            if tier.holds_for(input_tokens, service_tier):
                most = max(most, rates.most(estimate))
        return most


def _dearest(price: Decimal, *others: Decimal | None) -> Decimal:
    return max(price, *(each for each in others if each is not None), Decimal(0))


@dataclass(frozen=True, slots=True)
class Accounting:
    """Prices answers: as billed, else by the deployment's own price, else by the price table."""

    prices: PriceBook
    unpriced: UnpricedModels
    unpriced_hold_usd: Decimal = Decimal("0.05")
    rates: dict[int, _Rates] = field(default_factory=dict, repr=False, compare=False)

    def cost(self, turn: Turn, facts: AnswerFacts) -> CostAmount | None:
        """As billed, else computed; None if neither is known."""
        usage = facts.usage
        if usage is None:
            return None
        return usage.cost if usage.cost is not None else self._computed(turn, facts, usage)

    def costs(self, turn: Turn, facts: AnswerFacts, usage: Usage | None, *, may_be_billed: bool) -> Costs:
        """For the books; a model without a price is noted. `usage` is that of the facts, or an estimate."""
        reported = usage.cost if usage else None
        estimated = self._computed(turn, facts, usage) if usage else None
        if usage and reported is None and estimated is None:
            self.unpriced.note(facts.model or turn.candidate.model)
        if reported is not None:
            return Costs(estimated, reported, CostSource.REPORTED)
        if estimated is not None:
            return Costs(estimated, None, CostSource.COMPUTED)
        return _UNKNOWN_COSTS if may_be_billed else NO_COSTS

    def most_cost(self, deployments: Iterable[Deployment], models: Sequence[str], estimate: TokenEstimate) -> int:
        """Picodollars that no deployment, nor any of the request's models, should cost more than.

        Those models count where a provider walks them itself; else they are among the deployments. Input beyond a
        model's context window is not counted. For what has no price `unpriced_hold_usd` stands.
        """
        table, most, walks_models = self.prices.current(), 0, False
        for each in deployments:
            price = each.price or table.get(each.model)
            rates = self.rates.get(id(price))
            if rates is None or rates.price is not price:
                rates = self._learnt(price)
            cost = rates.most(estimate)
            most = max(most, cost)
            walks_models = walks_models or each.walks_models
        if models and walks_models:
            most = max(most, *(self._learnt(table.get(model)).most(estimate) for model in models))
        return most

    def _learnt(self, price: ModelPricing | None) -> _Rates:
        """Kept for as long as the price is the same object: decimals take longer than what they are used for here."""
        if len(self.rates) > _MOST_RATES:
            self.rates.clear()
        rates = _Rates.of(price) if price else _Rates(None, 0, 0, 0, picodollars(self.unpriced_hold_usd), None)
        self.rates[id(price)] = rates
        return rates

    def _computed(self, turn: Turn, facts: AnswerFacts, usage: Usage) -> CostAmount | None:
        if turn.computed is not None and turn.computed[0] is usage:
            return turn.computed[1]
        deployment = turn.candidate.deployment
        try:
            price = deployment.price or price_for(self.prices.current(), deployment.model, facts.model)
            cost = price.cost_of(usage) if price else None
        except Exception:  # a defect of the accounting must not cost the client its answer
            _logger.exception("cost not computed", extra={"request_id": turn.call.request_id})
            return None
        turn.computed = usage, cost
        return cost
