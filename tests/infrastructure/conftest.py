"""Fixtures: the chat completion service as a Semantic Kernel program uses it, over a real upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import pytest
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, ChatMessageContent

from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.http import client_session
from proxy.infrastructure.resilience import Resilience, RetryPolicy
from tests.harness import FakeTime, Upstream

API_KEY = "sk-or-provider-secret"


def hello() -> ChatHistory:
    """A history of one message."""
    history = ChatHistory()
    history.add_user_message("Hello")
    return history


def settings(**parameters: Any) -> PromptExecutionSettings:
    """Settings as any Semantic Kernel program makes them."""
    return PromptExecutionSettings(extension_data=parameters)


async def ask(service: OpenRouterChatCompletion, **parameters: Any) -> ChatMessageContent:
    """The one answer to a Hello."""
    (content,) = await service.get_chat_message_contents(hello(), settings(**parameters))
    return content


@dataclass(frozen=True)
class Connector:
    """A service and the parts that it stands on."""

    service: OpenRouterChatCompletion
    session: aiohttp.ClientSession
    breaker: Breaker
    time: FakeTime


class Connect(Protocol):
    """Makes a connector; keyword arguments are WireSettings' fields."""

    async def __call__(self, **wire: Any) -> Connector: ...


@pytest.fixture
async def connect(upstream: Upstream) -> AsyncIterator[Connect]:
    """Connectors with all defaults, in time that passes only by waiting."""
    async with AsyncExitStack() as stack:

        async def make(**wire: Any) -> Connector:
            session = await stack.enter_async_context(client_session(5.0, 5.0))
            fake = FakeTime()
            breaker = Breaker("OpenRouter", clock=lambda: fake.now)
            settings = WireSettings(**{"provider": "OpenRouter", "base_url": upstream.url, "api_key": API_KEY, **wire})
            resilience = Resilience(breaker, RetryPolicy(), fake.timing())
            service = OpenRouterChatCompletion(
                settings, session, resilience, service_id="openrouter", ai_model_id="z-ai/glm-4.6"
            )
            return Connector(service, session, breaker, fake)

        yield make


@pytest.fixture
async def connector(connect: Connect) -> Connector:
    """A connector with all defaults."""
    return await connect()


@pytest.fixture
def service(connector: Connector) -> OpenRouterChatCompletion:
    """Its service."""
    return connector.service
