"""Composing what the command line does about costs that are not known for certain."""

from __future__ import annotations

from collections.abc import Callable

from proxy.application.reconcile import Pace, Reconciliation, Search
from proxy.bootstrap.storage import migrated_database
from proxy.domain.reconciliation import ReconcileReport
from proxy.infrastructure.endpoint import ProviderEndpoint
from proxy.infrastructure.http import client_session
from proxy.infrastructure.persistence.reconciliation import LedgerReconciliation
from proxy.infrastructure.reconcile import OpenRouterBills
from proxy.settings import Settings

__all__ = ["Search", "reconcile_costs"]

_PROVIDER = "OpenRouter"
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
    """Asks the upstream what it billed; `report` is told. Raises InvalidValue or DATABASE_ERRORS."""
    key = settings.openrouter_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    endpoint = ProviderEndpoint(settings.openrouter_base_url, headers)
    timeouts = settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds
    async with migrated_database(settings) as database, client_session(*timeouts) as session:
        rows, bills = LedgerReconciliation(database, _PROVIDER), OpenRouterBills(session, endpoint)
        reconciliation = Reconciliation(rows, bills, Pace(rate_per_second, _WAITS_SECONDS))
        await reconciliation.run(search, report, limit=limit, dry_run=dry_run, on_progress=on_progress)
