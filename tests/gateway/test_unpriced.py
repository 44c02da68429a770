"""Models without a price: the cost is unknown, said once, and counted."""

from __future__ import annotations

import pytest

from proxy.domain.request_log import CostSource
from tests.harness import COMPLETION, HELLO, TestGateway, Upstream, says

UNBILLED = {**COMPLETION, "model": "nobody/knows", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


async def test_a_model_without_a_price_is_warned_of_once_and_counted(
    gateway: TestGateway, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer(says(UNBILLED))
    for _ in range(3):
        _, headers, _ = await gateway.chat({**HELLO, "model": "nobody/knows"})
        assert "x-gateway-cost-usd" not in headers
    rows = await gateway.rows(3)
    assert {row.cost_source for row in rows} == {CostSource.UNKNOWN}
    assert [row.cost() for row in rows] == [None] * 3
    health = (await gateway.get("/health"))[1]
    assert health["metrics"] == {"llmgateway_unpriced_requests": 3}
    assert [record.message for record in caplog.records].count("no price for model, cost unknown") == 1


async def test_a_billed_answer_needs_no_price(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.answer(says({**COMPLETION, "model": "nobody/knows"}))
    await gateway.chat({**HELLO, "model": "nobody/knows"})
    assert (await gateway.row()).cost_source is CostSource.REPORTED
    assert (await gateway.get("/health"))[1]["metrics"] == {"llmgateway_unpriced_requests": 0}
