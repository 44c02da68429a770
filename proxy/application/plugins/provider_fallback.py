"""ProviderFallback.get_fallback_model"""

from __future__ import annotations

from typing import Annotated

from semantic_kernel.functions import kernel_function

from proxy.domain.routing import ModelPolicy, fallback_model


class ProviderFallback:
    """Names the model to try after one that failed."""

    def __init__(self, policy: ModelPolicy) -> None:
        self._policy = policy

    @kernel_function(name="get_fallback_model", description="The next model of the fallback chain, not yet attempted.")
    def get_fallback_model(
        self,
        failed_model: Annotated[str, "the model that failed"],
        attempted_models: Annotated[list[str] | None, "all models attempted so far"] = None,
    ) -> str:
        """The model's name. Raises AllProvidersFailed when none is left."""
        return fallback_model(failed_model, attempted_models or [failed_model], self._policy)
