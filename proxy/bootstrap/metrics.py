"""What is counted, and how often one looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.application.load import Load
from proxy.application.ports import HealthSource
from proxy.bootstrap.configuration import Configuration
from proxy.bootstrap.runtimes import Runtimes
from proxy.infrastructure.loop_lag import LoopLag, measuring
from proxy.infrastructure.telemetry.metrics.metrics import PrometheusMetrics, counting


@asynccontextmanager
async def metrics_of(
    runtimes: Runtimes, health: HealthSource, load: Load, configuration: Configuration
) -> AsyncIterator[PrometheusMetrics]:
    """Metrics of what these know. Turns of the event loop are measured for them, and for the load's patience."""

    def configured_name(model: str) -> str | None:
        return runtimes.current().catalog.configured_name(model)

    metrics = PrometheusMetrics(configured_name, health.report, load, lambda: configuration.problems)

    def observe(turn_seconds: float, now: float) -> None:
        load.patience.observe(turn_seconds, now)
        metrics.turned(turn_seconds)

    with measuring(LoopLag(observe)):
        async with counting(metrics):
            yield metrics
