"""Two calls of a hedge that answer at the same moment: the books and the trace say whose answer the client got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import ClientSession
from pydantic import PrivateAttr
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import AuthorRole, ChatHistory, ChatMessageContent

from proxy.application.booking import Accounting
from proxy.application.kernel_factory import KernelFactory
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.raw_call import RawSettings
from proxy.application.runtime import Runtime
from proxy.application.tracing import trace_of
from proxy.application.unpriced import UnpricedModels
from proxy.domain.catalog import Catalog, Strategy
from proxy.domain.chat import AnswerFacts, Usage
from proxy.domain.request_log import RequestStatus
from proxy.domain.routing import ModelPolicy
from proxy.domain.values import CostAmount
from proxy.infrastructure.chat_completion.registry import ServiceFactory
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.fleet import DeploymentSpec, running_fleet
from proxy.infrastructure.resilience import Resilience, Timing
from tests.application.conftest import FakeLedger, FakePrices, FixedRuntime, chat_request
from tests.catalogs import deployment, route

COSTS = {"a": CostAmount(Decimal("0.001")), "b": CostAmount(Decimal("0.02"))}


class Said:
    """A FactSource that knows it all from the start."""

    def __init__(self, name: str) -> None:
        self._facts = AnswerFacts(model=name, generation_id=f"gen-{name}", usage=Usage(1, 1, cost=COSTS[name]))

    def facts(self) -> AnswerFacts:
        return self._facts

    def estimated_output_tokens(self) -> int:
        return 1


class Together(ChatCompletionClientBase):
    """A service that answers when both services have been asked."""

    _meeting: asyncio.Barrier = PrivateAttr()

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return RawSettings

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        assert isinstance(settings, RawSettings)
        assert settings.call is not None
        settings.call.attempts += 1
        settings.call.answer = Said(self.service_id)
        await self._meeting.wait()
        metadata: dict[str, Any] = {"content_type": "application/json", "headers": {}, "model": self.service_id}
        return [ChatMessageContent(role=AuthorRole.ASSISTANT, items=[], inner_content=b"{}", metadata=metadata)]


@pytest.fixture
async def orchestrator(ledger: FakeLedger, prices: FakePrices) -> AsyncIterator[KernelOrchestrator]:
    """Over two deployments of one model, the second of which is asked when the first is slow."""
    meeting = asyncio.Barrier(2)

    def factory_of(_kind: str) -> ServiceFactory:
        def made(
            settings: WireSettings, session: ClientSession, resilience: Resilience, *, service_id: str, ai_model_id: str
        ) -> Together:
            service = Together(service_id=service_id, ai_model_id=ai_model_id)
            service._meeting = meeting
            return service

        return made

    behind = [deployment(name, model=name) for name in COSTS]
    catalog = Catalog([route(*behind, strategy=Strategy.PRIORITY, hedge_after=0.001)])
    specs = [DeploymentSpec(each, "fake", WireSettings(provider=each.provider, base_url="-")) for each in behind]
    async with running_fleet(factory_of, Timing()) as fleet:
        deployments = await fleet.become(specs)
        kernel = KernelFactory([live.service for live in deployments.values()], prices, ModelPolicy()).create()
        runtime = Runtime(catalog, ModelPolicy(), kernel, deployments, max_attempts=4, request_timeout_seconds=60.0)
        yield KernelOrchestrator(FixedRuntime(runtime), ledger, Accounting(prices, UnpricedModels()))


async def test_the_row_is_of_the_answer_that_the_client_got(
    orchestrator: KernelOrchestrator, ledger: FakeLedger
) -> None:
    for _ in range(20):
        ledger.rows.clear()
        asked = chat_request(model="m")
        with orchestrator.exchange("r", lambda: True) as exchange:
            exchange.asked(asked)
            answer = await orchestrator.complete(exchange, asked, {})
            exchange.answering(200)
        rows = {row.status: row for row in ledger.rows}
        loser = next(name for name in COSTS if name != answer.provider)
        assert rows[RequestStatus.SUCCESS].provider_name == answer.provider
        assert rows[RequestStatus.HEDGED].provider_name == loser
        costs = {each.deployment: each.cost for each in trace_of(exchange).attempts}
        assert costs == COSTS
