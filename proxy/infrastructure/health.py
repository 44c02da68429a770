"""Watching the database and the providers, so that a health report waits for nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import ClientError, ClientSession, ClientTimeout
from circuitbreaker import STATE_OPEN

from proxy.application.health import anybody_stays
from proxy.application.ports import HealthReport, ProviderHealthChecker
from proxy.application.siblings import Siblings
from proxy.application.unpriced import UnpricedModels
from proxy.infrastructure.deployments.fleet import Fleet
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.http import detail_for_the_log
from proxy.infrastructure.ledger.ledger import SpoolLedger
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.arrival import Arrival
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.persistence.retention import LedgerUpkeep

_logger = logging.getLogger(__name__)
_CHECK_TIMEOUT_SECONDS = 5.0
_PROVIDER_INTERVAL_SECONDS = 60.0
_DATABASE_INTERVAL_SECONDS = 5.0
_OK, _FIRST_NOT_OK = 200, 300
_REPLACED = "this worker is ending, and others take its place"


class HttpHealthChecker:
    """ProviderHealthChecker by HTTP."""

    def __init__(
        self,
        session: ClientSession,
        providers: Callable[[], Mapping[str, ProviderEndpoint]],
        timeout_seconds: float = _CHECK_TIMEOUT_SECONDS,
    ) -> None:
        self._session = session
        self._providers = providers
        self._timeout = ClientTimeout(total=timeout_seconds)

    async def is_healthy(self, provider: str) -> bool:
        return await self._answers(provider, self._providers()[provider])

    async def _answers(self, provider: str, endpoint: ProviderEndpoint) -> bool:
        detail: dict[str, str] = {}
        try:
            async with self._session.get(
                endpoint.models_url, headers=endpoint.headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                healthy = _OK <= response.status < _FIRST_NOT_OK
                reason = f"HTTP {response.status}"
        except (ClientError, OSError, ValueError) as problem:
            healthy, reason, detail = False, type(problem).__name__, detail_for_the_log(problem)
        if not healthy:
            _logger.warning("provider is not healthy", extra={"provider": provider, "reason": reason, **detail})
        return healthy

    async def check_all_providers(self) -> Mapping[str, bool]:
        endpoints = self._providers()
        results = await asyncio.gather(*(self._answers(name, endpoint) for name, endpoint in endpoints.items()))
        return dict(zip(endpoints, results, strict=True))


class HealthMonitor:
    """HealthSource: what the last checks saw, and the present state of breaker and ledger."""

    def __init__(
        self,
        arrival: Arrival,
        ledger: SpoolLedger,
        upkeep: LedgerUpkeep,
        checker: ProviderHealthChecker,
        fleet: Fleet,
        unpriced: UnpricedModels,
        limiter: CountingLimiter,
        siblings: Siblings,
    ) -> None:
        self._arrival = arrival
        self._database = arrival.database
        self._ledger = ledger
        self._upkeep = upkeep
        self._checker = checker
        self._fleet = fleet
        self._unpriced = unpriced
        self._limiter = limiter
        self._siblings = siblings
        self._provider_results: Mapping[str, bool] = {}
        self._providers_checked: Mapping[str, ProviderEndpoint] = {}  # where, and with which key
        self._providers_checked_at: datetime | None = None
        self._database_error: str | None = None
        self._stopping = False
        self._gives_way: Callable[[], bool] = lambda: False

    def stop_serving(self, gives_way: Callable[[], bool]) -> None:
        """From now on the report says that the gateway is shutting down, or that others take this worker's place."""
        self._stopping = True
        self._gives_way = gives_way

    def is_stopping(self) -> bool:
        return self._stopping

    def report(self) -> HealthReport:
        deployments = self._fleet.deployments()
        open_breakers = [name for name, live in deployments.items() if live.breaker.state == STATE_OPEN]
        providers = {name: self._provider(name, endpoint) for name, endpoint in self._fleet.endpoints().items()}
        database_error = self._arrival.trouble or self._database_error
        ledger = self._ledger.state()
        can_book = self._arrival.here.is_set() and self._ledger.can_book()
        gives_way = self._gives_way()
        is_replaced = gives_way and anybody_stays(self._siblings)
        reasons = self._hindrances(is_replaced=is_replaced)
        own = tuple(reasons)
        degraded = [f"provider {name} did not answer" for name, seen in providers.items() if seen["healthy"] is False]
        if database_error or not can_book:
            degraded.append(f"the database does not take rows ({database_error or ledger['last_error']})")
        degraded += self._troubles_of_upkeep()
        if deployments and len(open_breakers) == len(deployments):
            reasons.append(f"the circuit breaker of every deployment is open: {', '.join(open_breakers)}")
        elif open_breakers:
            degraded.append(f"the circuit breaker is open: {', '.join(open_breakers)}")
        if is_replaced:
            degraded[:0], reasons, own = [_REPLACED, *reasons], [], ()
        return HealthReport(
            cannot_serve=reasons,
            cannot_accept=own,
            can_book=can_book,
            degraded=degraded,
            database={
                "status": "down" if database_error else "up",
                "kind": "postgresql" if self._database.is_postgres else "sqlite",
                "last_error": database_error,
            },
            ledger={**ledger, "can_book": can_book},
            limits=self._limiter.state(),
            unpriced_requests=self._unpriced.requests,
            providers=providers,
            deployments={name: live.report() for name, live in deployments.items()},
            recent_calls={name: live.traffic.outcomes.calls for name, live in deployments.items()},
            gives_way=gives_way,
        )

    def _hindrances(self, *, is_replaced: bool) -> list[str]:
        """Why this process takes no more requests, whatever becomes of its providers."""
        found = ["the gateway is shutting down"] if self._stopping and not is_replaced else []
        refusal = self._ledger.refusal()
        if refusal is not None:
            found.append(f"the ledger cannot book another request: {refusal}")
        return found

    def _troubles_of_upkeep(self) -> list[str]:
        """What does not work behind the requests, which are served."""
        sync = self._ledger.sync_trouble()
        if sync == self._ledger.refusal():  # then it is told as that
            sync = None
        return [trouble for trouble in (sync, self._upkeep.trouble, self._limiter.trouble) if trouble is not None]

    def _provider(self, name: str, endpoint: ProviderEndpoint) -> dict[str, object]:
        """What the last check saw of it; nothing of one that has come since, or has another address or key."""
        healthy = self._provider_results.get(name) if self._providers_checked.get(name) == endpoint else None
        checked = None if healthy is None else self._providers_checked_at
        return {
            "healthy": healthy,
            "last_checked_at": checked.isoformat(timespec="seconds") if checked else None,
        }

    async def check_database(self) -> None:
        try:
            await self._database.ping(_CHECK_TIMEOUT_SECONDS)
        except DATABASE_ERRORS as problem:
            self._database_error = type(problem).__name__
        else:
            self._database_error = None

    async def check_providers(self) -> None:
        asked = self._fleet.endpoints()
        self._provider_results = await self._checker.check_all_providers()
        self._providers_checked = asked
        self._providers_checked_at = datetime.now(UTC)


@asynccontextmanager
async def watching(monitor: HealthMonitor) -> AsyncIterator[HealthMonitor]:
    """Runs the monitor's checks in the background until the end."""
    async with (
        repeating(monitor.check_database, lambda: _DATABASE_INTERVAL_SECONDS, "database check"),
        repeating(monitor.check_providers, _provider_interval_seconds, "provider check"),
    ):
        yield monitor


def _provider_interval_seconds() -> float:
    return _PROVIDER_INTERVAL_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311  # so that many gateways do not ask at once
