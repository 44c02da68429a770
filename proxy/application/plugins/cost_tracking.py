"""CostTracking.track_cost"""

from __future__ import annotations

import logging
from typing import Annotated

from semantic_kernel.functions import kernel_function

from proxy.application.ports import ModelPricingRepository
from proxy.domain.chat import Usage
from proxy.domain.price_tiers import priced_service_tier
from proxy.domain.values import CostAmount, TokenCount

_logger = logging.getLogger(__name__)


class CostTracking:
    """Prices tokens by the prices in force."""

    def __init__(self, prices: ModelPricingRepository) -> None:
        self._prices = prices

    @kernel_function(name="track_cost", description="What a completion cost in USD; nothing if the price is unknown.")
    async def track_cost(
        self,
        model: Annotated[str, "the model that answered"],
        input_tokens: Annotated[int, "prompt tokens as reported"],
        output_tokens: Annotated[int, "completion tokens as reported"],
        cached_tokens: Annotated[int | None, "prompt tokens read from a cache"] = None,
        cache_write_tokens: Annotated[int | None, "prompt tokens written to a cache"] = None,
        audio_tokens: Annotated[int | None, "prompt tokens of audio"] = None,
        image_tokens: Annotated[int | None, "prompt tokens of images"] = None,
        reasoning_tokens: Annotated[int | None, "completion tokens of reasoning"] = None,
        cache_write_1h_tokens: Annotated[int | None, "of those written to a cache, for an hour"] = None,
        audio_output_tokens: Annotated[int | None, "completion tokens of audio"] = None,
        image_output_tokens: Annotated[int | None, "completion tokens of images"] = None,
        service_tier: Annotated[str | None, "the service tier that answered"] = None,
    ) -> CostAmount | None:
        """The exact cost, None (never zero) for a model without a price. Raises InvalidValue for negative counts."""
        tokens = TokenCount(input_tokens), TokenCount(output_tokens)
        pricing = await self._prices.get_by_model(model)
        if pricing is None:
            _logger.warning("no price for model, cost unknown", extra={"model": model})
            return None
        return pricing.cost_of(
            Usage(
                input_tokens=tokens[0].value,
                output_tokens=tokens[1].value,
                cached_tokens=cached_tokens,
                reasoning_tokens=reasoning_tokens,
                cache_write_tokens=cache_write_tokens,
                audio_tokens=audio_tokens,
                image_tokens=image_tokens,
                cache_write_1h_tokens=cache_write_1h_tokens,
                audio_output_tokens=audio_output_tokens,
                image_output_tokens=image_output_tokens,
                service_tier=priced_service_tier(service_tier),
            )
        )
