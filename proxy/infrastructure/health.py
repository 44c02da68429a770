"""Watching the database and the providers, so that a health report waits for nothing."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import ClientError, ClientSession, ClientTimeout
from circuitbreaker import STATE_OPEN

from proxy.application.ports import HealthReport, ProviderHealthChecker
from proxy.application.unpriced import UnpricedModels
from proxy.infrastructure.ledger.ledger import SpoolLedger
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.errors import DATABASE_ERRORS
from proxy.infrastructure.resilience import Breaker

_logger = logging.getLogger(__name__)
_CHECK_TIMEOUT_SECONDS = 5.0
_PROVIDER_INTERVAL_SECONDS = 60.0
_DATABASE_INTERVAL_SECONDS = 5.0
_OK, _FIRST_NOT_OK = 200, 300


@dataclass(frozen=True, slots=True)
class ProviderEndpoint:
    """Where a provider is asked whether it is there: `GET models` under its base URL, which costs nothing."""

    base_url: str
    headers: Mapping[str, str]


class HttpHealthChecker:
    """ProviderHealthChecker by HTTP."""

    def __init__(
        self,
        session: ClientSession,
        providers: Mapping[str, ProviderEndpoint],
        timeout_seconds: float = _CHECK_TIMEOUT_SECONDS,
    ) -> None:
        self._session = session
        self._providers = providers
        self._timeout = ClientTimeout(total=timeout_seconds)

    async def is_healthy(self, provider: str) -> bool:
        endpoint = self._providers[provider]
        url = endpoint.base_url.rstrip("/") + "/models"
        try:
            async with self._session.get(
                url, headers=endpoint.headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                healthy = _OK <= response.status < _FIRST_NOT_OK
                reason = f"HTTP {response.status}"
        except (ClientError, OSError, ValueError) as problem:
            healthy, reason = False, type(problem).__name__
        if not healthy:
            _logger.warning("provider is not healthy", extra={"provider": provider, "reason": reason})
        return healthy

    async def check_all_providers(self) -> Mapping[str, bool]:
        results = await asyncio.gather(*(self.is_healthy(provider) for provider in self._providers))
        return dict(zip(self._providers, results, strict=True))


class HealthMonitor:
    """HealthSource: what the last checks saw, and the present state of breaker and ledger."""

    def __init__(
        self,
        database: Database,
        ledger: SpoolLedger,
        checker: ProviderHealthChecker,
        breakers: Mapping[str, Breaker],
        unpriced: UnpricedModels,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._checker = checker
        self._breakers = breakers
        self._unpriced = unpriced
        self._provider_results: Mapping[str, bool] = {}
        self._providers_checked_at: datetime | None = None
        self._database_error: str | None = None
        self._stopping = False

    def stop_serving(self) -> None:
        """From now on the report says that the gateway is shutting down."""
        self._stopping = True

    def report(self) -> HealthReport:
        open_breakers = [name for name, breaker in self._breakers.items() if breaker.state == STATE_OPEN]
        reasons = ["the gateway is shutting down"] if self._stopping else []
        refusal = self._ledger.refusal()
        if refusal is not None:
            reasons.append(f"the ledger is full: {refusal}")
        if self._breakers and len(open_breakers) == len(self._breakers):
            reasons.append(f"the circuit breaker of every provider is open: {', '.join(open_breakers)}")
        degraded = [f"provider {name} did not answer" for name, ok in self._provider_results.items() if not ok]
        if self._database_error or not self._ledger.can_book():
            degraded.append(f"the database does not take rows ({self._database_error or 'the last write failed'})")
        return HealthReport(
            cannot_serve=reasons,
            can_book=self._ledger.can_book(),
            degraded=degraded,
            database={
                "status": "down" if self._database_error else "up",
                "kind": "postgresql" if self._database.is_postgres else "sqlite",
                "last_error": self._database_error,
            },
            ledger=self._ledger.state(),
            unpriced_requests=self._unpriced.requests,
            providers={name: self._provider(name, breaker) for name, breaker in self._breakers.items()},
        )

    def _provider(self, name: str, breaker: Breaker) -> dict[str, object]:
        checked = self._providers_checked_at
        return {
            "healthy": self._provider_results.get(name),
            "last_checked_at": checked.isoformat(timespec="seconds") if checked else None,
            "circuit_breaker": breaker.state,
            "consecutive_failures": breaker.failure_count,
            "retry_after_seconds": round(max(0.0, breaker.open_remaining), 1) if breaker.state == STATE_OPEN else None,
        }

    async def check_database(self) -> None:
        try:
            await self._database.ping(_CHECK_TIMEOUT_SECONDS)
        except DATABASE_ERRORS as problem:
            self._database_error = type(problem).__name__
        else:
            self._database_error = None

    async def check_providers(self) -> None:
        self._provider_results = await self._checker.check_all_providers()
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
