"""The reserved model `auto`: the gateway chooses, and may fall back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from proxy.domain.catalog import AUTO
from proxy.domain.errors import AllProvidersFailed, TokenLimitExceeded


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """What `auto` chooses from. Thresholds are estimated prompt tokens; a count equal to one is within it."""

    default_model: str = "z-ai/glm-4.6"
    large_context_model: str = "moonshotai/Kimi-K2-Instruct-0905"
    balanced_model: str = "deepseek-ai/DeepSeek-V3.1-Terminus"
    large_context_threshold_tokens: int = 10_000
    max_prompt_tokens: int = 200_000

    @property
    def chain(self) -> tuple[str, ...]:
        """The fallback order; it is walked in a circle."""
        return (self.large_context_model, self.balanced_model, self.default_model)


class Choice(NamedTuple):
    """A model, and why it was chosen."""

    model: str
    reason: str


def select_model(requested: str, estimated_tokens: int, policy: ModelPolicy) -> Choice:
    """The model for a request.

    Raises:
        TokenLimitExceeded: `auto` was asked to choose for a prompt that no configured model takes.
    """
    if requested != AUTO:
        return Choice(requested, "named by the request")
    if estimated_tokens > policy.max_prompt_tokens:
        raise TokenLimitExceeded(estimated_tokens, policy.max_prompt_tokens)
    if estimated_tokens > policy.large_context_threshold_tokens:
        return Choice(policy.large_context_model, f"auto: about {estimated_tokens} tokens need a large context")
    return Choice(policy.default_model, "auto: default model")


def fallback_model(failed: str, attempted: Collection[str], policy: ModelPolicy) -> str:
    """The next model of the chain after `failed` that has not been attempted.

    Raises:
        AllProvidersFailed: all were attempted, or `failed` is in no configured chain.
    """
    chain = policy.chain
    if failed in chain:
        start = chain.index(failed) + 1
        for model in chain[start:] + chain[:start]:
            if model != failed and model not in attempted:
                return model
    raise AllProvidersFailed([*attempted] if failed in attempted else [*attempted, failed])


def fallbacks_of_auto(chosen: str, policy: ModelPolicy) -> list[Choice]:
    """What stands behind the model that `auto` chose, in order, each model once."""
    attempted, choices = [chosen], list[Choice]()
    while True:
        try:
            following = fallback_model(attempted[-1], attempted, policy)
        except AllProvidersFailed:
            return choices
        choices.append(Choice(following, f"fallback of {attempted[-1]}"))
        attempted.append(following)
