"""Plain completions through the running gateway."""

from __future__ import annotations

from decimal import Decimal

from proxy.domain.request_log import CostSource, RequestStatus
from proxy.domain.values import CostAmount
from tests.conftest import StartGateway
from tests.harness import COMPLETION, FakeTime, TestGateway, Upstream, fails


async def test_an_answer_comes_back_and_is_booked_once(gateway: TestGateway, upstream: Upstream) -> None:
    status, headers, body = await gateway.chat()
    assert status == 200
    assert body == COMPLETION
    assert headers["x-gateway-provider"] == "OpenRouter"
    assert headers["x-gateway-model"] == "z-ai/glm-4.6"
    assert headers["x-gateway-attempts"] == "1"
    assert Decimal(headers["x-gateway-cost-usd"]) == Decimal("0.00123")
    assert float(headers["x-gateway-overhead-ms"]) >= 0
    row = await gateway.row()
    assert row.status is RequestStatus.SUCCESS
    assert row.request_id == headers["x-request-id"]
    assert (row.input_tokens.value, row.output_tokens.value) == (10, 5)
    assert row.reported_cost == CostAmount(Decimal("0.00123"))
    assert row.estimated_cost == CostAmount(Decimal("0.000000002"))
    assert row.cost_source is CostSource.REPORTED
    assert row.generation_id == "gen-1"
    assert upstream.calls == 1


async def test_errors_tell_the_attempts_too(start_gateway: StartGateway, upstream: Upstream) -> None:
    gateway = await start_gateway(FakeTime().timing())
    upstream.answer(fails(503))
    status, headers, _ = await gateway.chat()
    assert (status, headers["x-gateway-attempts"]) == (503, "4")
    status, headers, _ = await gateway.chat({})
    assert (status, headers["x-gateway-attempts"]) == (400, "0")
