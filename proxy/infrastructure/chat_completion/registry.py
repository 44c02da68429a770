"""Which kinds of providers there are, and how a service for one is made: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import aiohttp
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

from proxy.domain.catalog import Deployment
from proxy.infrastructure.chat_completion.openrouter import openrouter
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.resilience import Resilience


class ServiceFactory(Protocol):
    """Makes the chat completion service of one deployment."""

    def __call__(
        self,
        settings: WireSettings,
        session: aiohttp.ClientSession,
        resilience: Resilience,
        *,
        service_id: str,
        ai_model_id: str,
    ) -> ChatCompletionClientBase: ...


KINDS: Mapping[str, ServiceFactory] = {
    "openrouter": openrouter,
}


def connect(
    kind: str, settings: WireSettings, session: aiohttp.ClientSession, resilience: Resilience, deployment: Deployment
) -> ChatCompletionClientBase:
    """The service of a deployment, under the deployment's name."""
    return KINDS[kind](settings, session, resilience, service_id=deployment.name, ai_model_id=deployment.model)
