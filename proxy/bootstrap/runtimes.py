"""Building runtimes, and changing from one to the next while requests run."""

from __future__ import annotations

from proxy.application.kernel_factory import KernelFactory
from proxy.application.ports import ModelPricingRepository
from proxy.application.runtime import Runtime, Uses
from proxy.bootstrap.blueprint import Blueprint
from proxy.infrastructure.deployments.fleet import Fleet


class Runtimes:
    """RuntimeSource: the last one that could be built."""

    def __init__(self, fleet: Fleet, prices: ModelPricingRepository) -> None:
        self._fleet = fleet
        self._prices = prices
        self._current: Runtime | None = None

    def current(self) -> Runtime:
        if self._current is None:
            raise AssertionError("a runtime is asked for before the first one is built")
        return self._current

    async def become(self, blueprint: Blueprint) -> None:
        """Requests that begin from now on are served as the blueprint says; those under way end as they began.

        Raises what connecting deployments raises; then nothing changes.
        """
        uses = self._current.uses if self._current else Uses()
        deployments = await self._fleet.become(blueprint.deployments, in_use=lambda: not uses.are_over)
        services = [live.service for live in deployments.values()]
        kernel = KernelFactory(services, self._prices, blueprint.policy).create()
        self._current = Runtime(
            catalog=blueprint.catalog,
            policy=blueprint.policy,
            kernel=kernel,
            deployments=deployments,
            max_attempts=blueprint.max_attempts,
            request_timeout_seconds=blueprint.request_timeout_seconds,
            model_groups=blueprint.model_groups,
            uses=Uses(uses),
        )
