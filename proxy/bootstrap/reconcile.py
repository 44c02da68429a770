"""Composing what the command line does about costs that are not known for certain."""

from __future__ import annotations

from collections.abc import Callable

from proxy.application.reconcile import Pace, Reconciliation, Search
from proxy.bootstrap.config_file import billing_providers
from proxy.bootstrap.storage import existing_database
from proxy.domain.errors import InvalidValue
from proxy.domain.reconciliation import ReconcileReport
from proxy.infrastructure.http import client_session
from proxy.infrastructure.persistence.reconciliation import LedgerReconciliation
from proxy.infrastructure.reconcile import OpenRouterBills
from proxy.settings import Settings

__all__ = ["Search", "reconcile_costs"]

_NOBODY_TO_ASK = (
    "No provider can be asked for bills: none of kind openrouter is configured, and the built-in demo upstream forgets "
    "its bills when its process ends. Set OPENROUTER_API_KEY, or a provider in gateway.yaml."
)
_WAITS_SECONDS = (1.0, 2.0, 4.0)


async def reconcile_costs(
    settings: Settings,
    search: Search,
    report: ReconcileReport,
    *,
    rate_per_second: float,
    limit: int | None,
    dry_run: bool,
    on_progress: Callable[[ReconcileReport], None],
) -> None:
    """Asks each provider what it billed; `report` is told of all together. Raises InvalidValue or DATABASE_ERRORS.

    A provider that gives no answers keeps nobody from asking the others.
    """
    providers = billing_providers(settings)
    if not providers:
        raise InvalidValue(_NOBODY_TO_ASK)
    timeouts = settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds
    async with existing_database(settings) as database, client_session(*timeouts) as session:
        for name, endpoint in providers.items():
            rows, bills = LedgerReconciliation(database, name), OpenRouterBills(session, endpoint)
            pace = Pace(rate_per_second, _WAITS_SECONDS)
            reconciliation = Reconciliation(rows, bills, pace, name=name if len(providers) > 1 else None)
            left = None if limit is None else limit - report.total().asked
            await reconciliation.run(search, report, limit=left, dry_run=dry_run, on_progress=on_progress)
