"""Which model answers a request, and which ones stand behind it.

A client that names a model gets that model or an error, never another one. The reserved name `auto` leaves the choice
to the gateway, and with it the fallbacks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from proxy.domain.chat import ChatRequest
from proxy.domain.errors import AllProvidersFailed, TokenLimitExceeded

AUTO = "auto"


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model to try, and why it stands at this place of the plan."""

    model: str
    reason: str
    is_fallback: bool = False


def select_model(requested: str, estimated_tokens: int, policy: ModelPolicy) -> Candidate:
    """The model for a request.

    Raises:
        TokenLimitExceeded: `auto` was asked to choose for a prompt that no configured model takes.
    """
    if requested != AUTO:
        return Candidate(requested, "named by the request")
    if estimated_tokens > policy.max_prompt_tokens:
        raise TokenLimitExceeded(estimated_tokens, policy.max_prompt_tokens)
    if estimated_tokens > policy.large_context_threshold_tokens:
        return Candidate(policy.large_context_model, f"auto: about {estimated_tokens} tokens need a large context")
    return Candidate(policy.default_model, "auto: default model")


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


def plan(request: ChatRequest, policy: ModelPolicy) -> tuple[Candidate, ...]:
    """The models to try for a request, best first.

    Raises:
        TokenLimitExceeded: see `select_model`.
    """
    if request.model != AUTO:
        return (Candidate(request.model, "named by the request"),)
    first = select_model(AUTO, request.estimated_input_tokens(), policy)
    candidates = [first]
    while True:
        try:
            following = fallback_model(candidates[-1].model, [c.model for c in candidates], policy)
        except AllProvidersFailed:
            return tuple(candidates)
        candidates.append(Candidate(following, f"fallback of {candidates[-1].model}", is_fallback=True))
