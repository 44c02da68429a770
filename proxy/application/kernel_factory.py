"""Building the kernel: its chat completion services and its plugins."""

from __future__ import annotations

from collections.abc import Sequence

from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase

from proxy.application.plugins import CostTracking, ModelSelection, ProviderFallback
from proxy.application.ports import ModelPricingRepository
from proxy.domain.routing import ModelPolicy


class KernelFactory:
    """Makes kernels over the given services. The gateway needs one; a program that embeds it may want its own."""

    def __init__(
        self,
        services: Sequence[ChatCompletionClientBase],
        prices: ModelPricingRepository,
        policy: ModelPolicy,
    ) -> None:
        self._services = services
        self._prices = prices
        self._policy = policy

    def create(self) -> Kernel:
        """A kernel with every service, and with the plugins ModelSelection, ProviderFallback and CostTracking."""
        kernel = Kernel()
        for service in self._services:
            kernel.add_service(service)
        kernel.add_plugin(ModelSelection(self._policy), "ModelSelection")
        kernel.add_plugin(ProviderFallback(self._policy), "ProviderFallback")
        kernel.add_plugin(CostTracking(self._prices), "CostTracking")
        return kernel
