"""A real kernel over the real wire: its plugins, and its service."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.exceptions import KernelInvokeException

from proxy.domain.errors import AllProvidersFailed, GatewayError, InvalidValue, TokenLimitExceeded
from proxy.domain.values import CostAmount
from tests.harness import Upstream

GLM, KIMI = "z-ai/glm-4.6", "moonshotai/Kimi-K2-Instruct-0905"
DEEPSEEK = "deepseek-ai/DeepSeek-V3.1-Terminus"


async def invoke(kernel: Kernel, plugin: str, function: str, **arguments: Any) -> Any:
    """The value of a plugin's function; the error that it raised, without the kernel's wrapping."""
    try:
        result = await kernel.invoke(plugin_name=plugin, function_name=function, **arguments)
    except KernelInvokeException as wrapped:
        error: BaseException | None = wrapped
        while error is not None and not isinstance(error, GatewayError):
            error = error.__cause__
        raise (error or wrapped) from wrapped
    return None if result is None else result.value


# The plugins


@pytest.mark.parametrize(
    ("requested", "tokens", "selected"),
    [
        ("openai/gpt-4o", 1_000_000, "openai/gpt-4o"),
        ("auto", 0, GLM),
        ("auto", 10_000, GLM),
        ("auto", 10_001, KIMI),
        ("auto", 200_000, KIMI),
    ],
)
async def test_select_model(kernel: Kernel, requested: str, tokens: int, selected: str) -> None:
    named = {"requested_model": requested, "estimated_tokens": tokens}
    assert await invoke(kernel, "ModelSelection", "select_model", **named) == selected


async def test_select_model_refuses_what_no_model_takes(kernel: Kernel) -> None:
    with pytest.raises(TokenLimitExceeded, match="Token count 200001 exceeds limit 200000"):
        await invoke(kernel, "ModelSelection", "select_model", requested_model="auto", estimated_tokens=200_001)


async def test_get_fallback_model_walks_the_chain(kernel: Kernel) -> None:
    attempted = [GLM]
    for expected in (KIMI, DEEPSEEK):
        named = {"failed_model": attempted[-1], "attempted_models": list(attempted)}
        found = await invoke(kernel, "ProviderFallback", "get_fallback_model", **named)
        assert found == expected
        attempted.append(found)
    with pytest.raises(AllProvidersFailed, match=f"All providers failed: {GLM}, {KIMI}, {DEEPSEEK}"):
        await invoke(
            kernel, "ProviderFallback", "get_fallback_model", failed_model=DEEPSEEK, attempted_models=attempted
        )


async def test_get_fallback_model_needs_no_list_for_a_first_failure(kernel: Kernel) -> None:
    assert await invoke(kernel, "ProviderFallback", "get_fallback_model", failed_model=KIMI) == DEEPSEEK


async def test_a_model_outside_the_chain_has_no_fallback(kernel: Kernel) -> None:
    with pytest.raises(AllProvidersFailed):
        await invoke(kernel, "ProviderFallback", "get_fallback_model", failed_model="openai/gpt-4o")


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "cost"),
    [
        (GLM, 1, 0, "0.0000000001"),
        (GLM, 10, 5, "0.000000002"),
        (KIMI, 1_000_000, 1_000_000, "0.0015"),
        (DEEPSEEK, 0, 0, "0"),
        (KIMI, 123_456_789, 987_654_321, "1.0493827155"),
    ],
)
async def test_track_cost_is_exact(
    kernel: Kernel, model: str, input_tokens: int, output_tokens: int, cost: str
) -> None:
    named = {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens}
    assert await invoke(kernel, "CostTracking", "track_cost", **named) == CostAmount(Decimal(cost))


async def test_track_cost_does_not_know_what_has_no_price(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "proxy"):
        named = {"model": "nobody/knows", "input_tokens": 1, "output_tokens": 1}
        assert await invoke(kernel, "CostTracking", "track_cost", **named) is None
    (record,) = caplog.records
    assert (record.levelname, record.__dict__["model"]) == ("WARNING", "nobody/knows")


async def test_track_cost_refuses_negative_counts(kernel: Kernel) -> None:
    with pytest.raises(InvalidValue):
        await invoke(kernel, "CostTracking", "track_cost", model=GLM, input_tokens=-1, output_tokens=1)


# The service


async def test_a_program_can_use_the_kernels_service(kernel: Kernel, upstream: Upstream) -> None:
    service = kernel.get_service("OpenRouter", type=ChatCompletionClientBase)
    assert service is kernel.get_service(type=ChatCompletionClientBase)
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message("Hello")
    settings = PromptExecutionSettings(extension_data={"model": KIMI, "temperature": 0.5})
    content = await service.get_chat_message_content(history, settings)
    assert content is not None
    assert (content.content, content.metadata["input_tokens"]) == ("Hi there!", 10)
    assert json.loads(upstream.bodies[0])["model"] == KIMI


async def test_a_prompt_can_be_invoked(kernel: Kernel, upstream: Upstream) -> None:
    result = await kernel.invoke_prompt("Hello {{$name}}", name="Eva")
    assert str(result) == "Hi there!"
    assert json.loads(upstream.bodies[0])["messages"] == [{"role": "user", "content": "Hello Eva"}]
