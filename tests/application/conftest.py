"""Fakes of the ports that the use cases need, and a real kernel over a real upstream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from semantic_kernel import Kernel

from proxy.application.booking import Accounting
from proxy.application.kernel_factory import KernelFactory
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.runtime import Runtime
from proxy.application.unpriced import UnpricedModels
from proxy.application.upstream import Answer
from proxy.domain.catalog import one_provider
from proxy.domain.chat import ChatRequest
from proxy.domain.errors import GatewayError, LedgerFull, StreamBroken
from proxy.domain.pricing import ModelPricing
from proxy.domain.request_log import RequestIntent, RequestLog
from proxy.domain.routing import ModelPolicy
from proxy.domain.values import ModelName
from proxy.infrastructure.chat_completion.registry import service_factory
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec, Fleet, running_fleet
from tests.harness import HELLO, FakeTime, Upstream


@dataclass(frozen=True, slots=True)
class FixedRuntime:
    """A RuntimeSource without reloads."""

    runtime: Runtime

    def current(self) -> Runtime:
        return self.runtime


@dataclass
class FakeLedger:
    """A Ledger that is a list."""

    rows: list[RequestLog] = field(default_factory=list)
    intents: list[RequestIntent] = field(default_factory=list)
    generations: list[tuple[UUID, str]] = field(default_factory=list)
    admitted: int = 0
    is_full: bool = False
    waits_for_disk: bool = True
    is_without_disk: bool = False

    def admit(self) -> None:
        if self.is_full:
            raise LedgerFull("full", 5.0)
        self.admitted += 1

    def begin(self, intent: RequestIntent) -> None:
        self.intents.append(intent)

    def generating(self, request: UUID, generation_id: str) -> None:
        self.generations.append((request, generation_id))

    async def durable(self) -> None:
        """At once."""
        if self.is_without_disk:
            raise LedgerFull("the disk takes nothing", 5.0)

    def settle(self, row: RequestLog) -> None:
        self.rows.append(row)

    @property
    def row(self) -> RequestLog:
        """The one row of the one request."""
        assert self.admitted == 1
        (row,) = self.rows
        return row


def price(model: str, input_cost: str, output_cost: str) -> ModelPricing:
    return ModelPricing(ModelName(model), "test", Decimal(input_cost), Decimal(output_cost), 1000, datetime.now(UTC))


@dataclass
class FakePrices:
    """A PriceBook and a ModelPricingRepository with the seeded prices."""

    table: dict[str, ModelPricing] = field(
        default_factory=lambda: {
            row.model.value: row
            for row in (
                price("z-ai/glm-4.6", "0.0001", "0.0002"),
                price("deepseek-ai/DeepSeek-V3.1-Terminus", "0.0003", "0.0005"),
                price("moonshotai/Kimi-K2-Instruct-0905", "0.0005", "0.0010"),
            )
        }
    )

    def current(self) -> Mapping[str, ModelPricing]:
        return self.table

    async def get_by_model(self, model: str) -> ModelPricing | None:
        return self.table.get(model)

    async def get_all(self) -> Sequence[ModelPricing]:
        return [self.table[name] for name in sorted(self.table)]


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def prices() -> FakePrices:
    return FakePrices()


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def fleet(fake_time: FakeTime) -> AsyncIterator[Fleet]:
    async with running_fleet(service_factory, fake_time.timing()) as fleet:
        yield fleet


@pytest.fixture
async def runtime(fleet: Fleet, upstream: Upstream, prices: FakePrices) -> Runtime:
    """As in a gateway without configuration: one deployment, which every model name goes to."""
    catalog = one_provider("OpenRouter")
    spec = DeploymentSpec(
        catalog.routes[0].deployments[0],
        "openrouter",
        WireSettings(provider="OpenRouter", base_url=upstream.url),
        cools_down=False,
    )
    deployments = await fleet.become([spec])
    kernel = KernelFactory([live.service for live in deployments.values()], prices, ModelPolicy()).create()
    return Runtime(catalog, ModelPolicy(), kernel, deployments, max_attempts=4, request_timeout_seconds=600.0)


@pytest.fixture
def kernel(runtime: Runtime) -> Kernel:
    return runtime.kernel


@pytest.fixture
def orchestrator(runtime: Runtime, ledger: FakeLedger, prices: FakePrices, fake_time: FakeTime) -> KernelOrchestrator:
    return KernelOrchestrator(
        runtime=FixedRuntime(runtime),
        ledger=ledger,
        accounting=Accounting(prices, UnpricedModels()),
        clock=lambda: fake_time.now,
    )


def chat_request(*, stream: bool = False, **members: Any) -> ChatRequest:
    payload = {**HELLO, **({"stream": True} if stream else {}), **members}
    messages = json.dumps(payload["messages"]).encode()
    return ChatRequest(
        body=json.dumps(payload).encode(), model=payload["model"], stream=stream, members={"messages": messages}
    )


async def complete(orchestrator: KernelOrchestrator, asked: ChatRequest, headers: Mapping[str, str] = {}) -> Answer:
    """What the handler does."""
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        exchange.asked(asked)
        try:
            answer = await orchestrator.complete(exchange, asked, headers)
        except GatewayError as error:
            exchange.failed(error, 500)
            raise
        exchange.answering(200)
        return answer


async def relay(orchestrator: KernelOrchestrator, asked: ChatRequest, stop_after: int | None = None) -> bytes:
    """What the handler does with a stream; `stop_after` chunks the client hangs up."""
    with orchestrator.exchange("req-1", lambda: True) as exchange:
        exchange.asked(asked)
        stream = await orchestrator.stream(exchange, asked, {})
        exchange.answering(200)
        chunks: list[bytes] = []
        try:
            async for data in stream:
                chunks.append(data)
                if len(chunks) == stop_after:
                    raise ConnectionResetError
        except StreamBroken as error:
            exchange.failed(error)
        finally:
            await stream.aclose()
        return b"".join(chunks)
