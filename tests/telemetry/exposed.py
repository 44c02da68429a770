"""All that /metrics can show, with its labels: also what only some gateways ever do."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from proxy.application.load import Load
from proxy.application.ports import HealthReport
from proxy.domain.overload import Patience
from proxy.infrastructure.telemetry.metrics.metrics import PrometheusMetrics

_LEDGER = ("waiting_rows", "oldest_waiting_seconds", "spool_bytes", "set_aside_rows", "booked_rows", "can_book")


def exposed_metrics() -> dict[str, frozenset[str]]:
    """Labels by name: counters with `_total`, histograms without a suffix."""
    report = HealthReport(
        database={"status": "up"},
        ledger=dict.fromkeys(_LEDGER, 0) | {"sync_error": None},
        limits={"waiting": 0, "valkey": "up"},
    )
    metrics = PrometheusMetrics(lambda model: model, lambda: report, Load(10, 10, 10, 10, Patience(0.0)), lambda: ())
    metrics.refresh()
    registry: CollectorRegistry = metrics._registry
    found: dict[str, frozenset[str]] = {}
    for collector in registry._collector_to_names:
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else ()
            found[name] = frozenset(labels)
    return found
