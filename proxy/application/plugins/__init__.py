"""The gateway's decisions as Semantic Kernel plugins: thin faces on pure functions of the domain."""

from proxy.application.plugins.cost_tracking import CostTracking
from proxy.application.plugins.model_selection import ModelSelection
from proxy.application.plugins.provider_fallback import ProviderFallback

__all__ = ["CostTracking", "ModelSelection", "ProviderFallback"]
