"""A price that is set holds for the next request, not for those of a minute later."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from proxy.bootstrap.prices import set_price
from proxy.domain.pricing import ModelPricing
from tests.conftest import StartGateway
from tests.harness import ADMINISTERED, AS_ADMIN, COMPLETION, HELLO, TestGateway, Upstream, says

MILLION = {**COMPLETION, "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}


async def cost(gateway: TestGateway) -> Decimal:
    return Decimal((await gateway.chat())[1]["x-gateway-cost-usd"])


async def test_a_price_that_the_gateway_was_told_holds_at_once(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(**ADMINISTERED)
    upstream.answer(says(MILLION))
    for usd in ("7", "8"):
        price = {"model": HELLO["model"], "input_cost_per_1m_tokens": usd, "output_cost_per_1m_tokens": "9"}
        async with gateway.http.post(gateway.url / "admin/prices", json=price, headers=AS_ADMIN) as response:
            assert response.status == 201
        assert await cost(gateway) == Decimal(usd)


async def test_a_price_that_a_command_has_set_is_heard_of_soon(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway()
    upstream.answer(says(MILLION))

    def dearer(price: ModelPricing | None) -> ModelPricing:
        assert price is not None
        return replace(price, input_cost_per_1m_tokens=Decimal(7), valid_from=datetime.now(UTC))

    assert await cost(gateway) != 7
    assert await set_price(gateway.settings, str(HELLO["model"]), dearer) is not None
    async with asyncio.timeout(10):
        while await cost(gateway) != 7:
            await asyncio.sleep(0.05)
