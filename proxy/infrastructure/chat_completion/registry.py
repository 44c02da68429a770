"""The kinds of provider there are, one line each. Importing this loads none of them: that takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Protocol

from proxy.domain.errors import InvalidValue

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

    from proxy.infrastructure.chat_completion.wire import WireSettings
    from proxy.infrastructure.resilience import Resilience

# kind → "module of this package:factory in it [extra that brings the libraries it needs, if any]"
KINDS: Mapping[str, str] = {
    "openrouter": "openrouter:OpenRouterChatCompletion",
    # Any server that behaves as OpenAI's: DeepSeek, Fireworks, Gemini, Groq, llama.cpp, Ollama, Together, vLLM, …
    "openai": "openai_compatible:OpenAICompatibleChatCompletion",
    "anthropic": "native.anthropic:anthropic [anthropic]",
    "azure": "openai_kinds:azure",
    "google": "native.google:google [google]",
    "mistral-openai": "openai_kinds:mistral",
}


class ServiceFactory(Protocol):
    """Makes the chat completion service of one deployment. `settings.provider` is its name in errors, logs and rows."""

    def __call__(
        self,
        settings: WireSettings,
        session: ClientSession,
        resilience: Resilience,
        *,
        service_id: str,
        ai_model_id: str,
    ) -> ChatCompletionClientBase: ...


def service_factory(kind: str, kinds: Mapping[str, str] = KINDS) -> ServiceFactory:
    """The factory of a kind of provider. Raises InvalidValue for an unknown kind, or one whose extra is missing."""
    if kind not in kinds:
        raise InvalidValue(f"Unknown provider kind '{kind}'; known are {', '.join(kinds)}.")
    entry = EntryPoint(kind, f"{__package__}.{kinds[kind]}", group="llmgateway.kinds")
    try:
        factory: ServiceFactory = entry.load()
    except ModuleNotFoundError as problem:
        if not entry.extras:
            raise
        needed = f"pip install 'llmgateway[{entry.extras[0]}]'"
        raise InvalidValue(f"Provider kind '{kind}' needs the package {problem.name}: {needed}") from problem
    return factory
