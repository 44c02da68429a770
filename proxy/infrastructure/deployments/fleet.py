"""All deployments of the gateway. A new configuration keeps those that stay the same, and all that is known of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from proxy.domain.catalog import Deployment
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.chat_completion.registry import ServiceFactory
from proxy.infrastructure.chat_completion.wire import WireSettings
from proxy.infrastructure.deployments.live import LiveDeployment
from proxy.infrastructure.deployments.places import Places
from proxy.infrastructure.deployments.rests import Rests
from proxy.infrastructure.deployments.traffic import Traffic
from proxy.infrastructure.endpoint import ProviderEndpoint, endpoint_of
from proxy.infrastructure.http import client_session
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.resilience import Resilience, RetryPolicy, Timing
from proxy.infrastructure.retry_budget import RetryBudget

_logger = logging.getLogger(__name__)
_CLOSING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class RetryBudgetSettings:
    """See RetryBudget."""

    percent: float = 20.0
    min_retries: int = 3


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """Everything that a deployment is made from. `kind` is the provider's, as the registry knows it.

    `cools_down` says whether a Retry-After keeps other requests away, too.
    """

    deployment: Deployment
    kind: str
    wire: WireSettings
    connect_timeout_seconds: float = 5.0
    max_concurrency: int | None = None
    max_queue: int = 100
    queue_timeout_seconds: float = 10.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    failure_threshold: int = 5
    cooldown_seconds: float = 30.0
    retry_budget: RetryBudgetSettings = field(default_factory=RetryBudgetSettings)
    cools_down: bool = True

    def is_reached_like(self, other: DeploymentSpec) -> bool:
        """Whether they differ in nothing but how requests are shared out: weights, limits, tags, prices."""
        return replace(self, deployment=other.deployment) == other and self.deployment.name == other.deployment.name


MakeResilience = Callable[[DeploymentSpec, Breaker, Timing, RetryBudget], Resilience]


def plain_resilience(spec: DeploymentSpec, breaker: Breaker, timing: Timing, budget: RetryBudget) -> Resilience:
    """Nobody looks on."""
    return Resilience(breaker, spec.retries, timing, budget)


@dataclass(slots=True, eq=False)
class _Kept:
    spec: DeploymentSpec
    live: LiveDeployment
    closing: AsyncExitStack
    may_be_asked: Callable[[], bool] = lambda: True  # by requests of a configuration that still had it


class Fleet:
    """Keeps deployments connected. `factory_of` gives the maker of a provider kind's services."""

    def __init__(
        self,
        factory_of: Callable[[str], ServiceFactory],
        timing: Timing,
        make_resilience: MakeResilience = plain_resilience,
    ) -> None:
        self._factory_of = factory_of
        self._timing = timing
        self._make_resilience = make_resilience
        self._kept: dict[str, _Kept] = {}
        self._retired: list[_Kept] = []
        self._budgets: dict[tuple[str, RetryBudgetSettings], RetryBudget] = {}

    async def become(
        self, specs: Sequence[DeploymentSpec], in_use: Callable[[], bool] = lambda: False
    ) -> dict[str, LiveDeployment]:
        """From now on these are the deployments.

        What is no longer needed is closed when its last call has ended, and when `in_use` says that no request of the
        present configuration is left that could make another. Raises what connecting raises; then everything stays as
        it was.
        """
        made: dict[str, _Kept] = {}
        try:
            for spec in specs:
                name = spec.deployment.name
                known = self._kept.get(name)
                if known is None or not known.spec.is_reached_like(spec):
                    made[name] = await self._made(spec)
        except BaseException:
            for kept in made.values():
                await kept.closing.aclose()
            raise
        self._take_over(specs, made, in_use)
        return self.deployments()

    def endpoints(self, kind: str | None = None) -> dict[str, ProviderEndpoint]:
        """Where each provider is, by its name: all of them, or those of a kind."""
        specs = (kept.spec for kept in self._kept.values())
        return {
            spec.deployment.provider: endpoint_of(spec.wire, spec.kind) for spec in specs if kind in (None, spec.kind)
        }

    def deployments(self) -> dict[str, LiveDeployment]:
        return {name: kept.live for name, kept in self._kept.items()}

    def _take_over(self, specs: Sequence[DeploymentSpec], made: dict[str, _Kept], in_use: Callable[[], bool]) -> None:
        wanted = {spec.deployment.name: spec for spec in specs}
        for name, kept in self._kept.items():
            if name not in wanted or name in made:
                kept.may_be_asked = in_use
                self._retired.append(kept)
        self._kept = {name: made.get(name) or self._kept[name] for name in wanted}
        for name, kept in self._kept.items():
            kept.spec = wanted[name]
            kept.live.deployment = wanted[name].deployment

    async def _made(self, spec: DeploymentSpec) -> _Kept:
        name, closing = spec.deployment.name, AsyncExitStack()
        budget = self._budgets.setdefault(
            (spec.deployment.provider, spec.retry_budget),
            RetryBudget(spec.retry_budget.percent, spec.retry_budget.min_retries),
        )
        breaker = Breaker(
            name,
            failure_threshold=spec.failure_threshold,
            cooldown_seconds=spec.cooldown_seconds,
            clock=self._timing.clock,
        )
        async with AsyncExitStack() as undoing:
            session = await undoing.enter_async_context(
                client_session(spec.connect_timeout_seconds, spec.wire.idle_timeout_seconds)
            )
            service = self._factory_of(spec.kind)(
                spec.wire,
                session,
                self._make_resilience(spec, breaker, self._timing, budget),
                service_id=name,
                ai_model_id=spec.deployment.model,
            )
            closing = undoing.pop_all()
        if (aclose := getattr(service, "aclose", None)) is not None:
            closing.push_async_callback(aclose)
        live = LiveDeployment(
            spec.deployment,
            service,
            breaker,
            Places(name, spec.max_concurrency, spec.max_queue, spec.queue_timeout_seconds),
            Traffic(self._timing.clock),
            budget,
            cools_down=spec.cools_down,
            rests=Rests(spec.retries.retry_after_cap_seconds, spec.max_queue, self._timing),
        )
        return _Kept(spec, live, closing)

    async def close_retired(self) -> None:
        """Closes those that nobody uses any more."""
        idle = [kept for kept in self._retired if kept.live.is_idle and not kept.may_be_asked()]
        self._retired = [kept for kept in self._retired if kept not in idle]
        for kept in idle:
            await kept.closing.aclose()
            _logger.info("deployment closed", extra={"deployment": kept.spec.deployment.name})

    async def close(self) -> None:
        for kept in [*self._retired, *self._kept.values()]:
            await kept.closing.aclose()


@asynccontextmanager
async def running_fleet(
    factory_of: Callable[[str], ServiceFactory], timing: Timing, make_resilience: MakeResilience = plain_resilience
) -> AsyncIterator[Fleet]:
    """A fleet without deployments; everything it got is closed at the end."""
    fleet = Fleet(factory_of, timing, make_resilience)
    try:
        async with repeating(fleet.close_retired, lambda: _CLOSING_SECONDS, "closing of deployments"):
            yield fleet
    finally:
        await fleet.close()
