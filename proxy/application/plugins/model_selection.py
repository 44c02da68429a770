"""ModelSelection.select_model"""

from __future__ import annotations

from typing import Annotated

from semantic_kernel.functions import kernel_function

from proxy.domain.routing import ModelPolicy, select_model


class ModelSelection:
    """Chooses the model of a request."""

    def __init__(self, policy: ModelPolicy) -> None:
        self._policy = policy

    @kernel_function(
        name="select_model", description="The model that serves a request; `auto` lets the gateway choose."
    )
    def select_model(
        self,
        requested_model: Annotated[str, "the request's model, or auto"],
        estimated_tokens: Annotated[int, "estimated prompt tokens"] = 0,
    ) -> str:
        """The model's name. Raises TokenLimitExceeded when `auto` has no model for a prompt that long."""
        return select_model(requested_model, estimated_tokens, self._policy).model
