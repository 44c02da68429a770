"""What requests are served by: everything that comes from one configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from semantic_kernel import Kernel

from proxy.application.ports import LiveDeployment
from proxy.domain.catalog import Catalog, Deployment
from proxy.domain.routing import DeploymentState, ModelPolicy


class Uses:
    """How many requests may still ask deployments of a runtime, or of one before it."""

    def __init__(self, before: Uses | None = None) -> None:
        self.count = 0
        self._before = before

    @property
    def are_over(self) -> bool:
        if self._before is not None and self._before.are_over:
            self._before = None
        return self.count == 0 and self._before is None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Of one configuration. A reload makes another one; a request keeps the one that it began with.

    Each deployment's service is in the kernel under the deployment's name. `max_attempts` bounds the upstream calls of
    a request; `request_timeout_seconds` the time of all of them, with waits and fallbacks, up to the first byte.
    """

    catalog: Catalog
    policy: ModelPolicy
    kernel: Kernel
    deployments: Mapping[str, LiveDeployment]
    max_attempts: int
    request_timeout_seconds: float
    model_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    uses: Uses = field(default_factory=Uses)

    def state_of(self, deployment: Deployment, *, stream: bool) -> DeploymentState:
        """What planning reads of it."""
        return self.deployments[deployment.name].state(deployment.model, stream=stream)


class RuntimeSource(Protocol):
    """Where the runtime of the moment is."""

    def current(self) -> Runtime: ...
