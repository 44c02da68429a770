"""All metrics of the process, and the page that a scraper reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from proxy.application.load import Load
from proxy.application.observing import MetricsPage
from proxy.application.ports import HealthReport
from proxy.infrastructure.periodic import repeating
from proxy.infrastructure.telemetry.metrics.gauges import Gauges
from proxy.infrastructure.telemetry.metrics.instruments import Instruments
from proxy.infrastructure.telemetry.metrics.processes import WorkerProcesses
from proxy.infrastructure.telemetry.metrics.recorder import Recorder
from proxy.infrastructure.telemetry.metrics.workers import leave, merged, shared_directory

_TICK_SECONDS = 1.0


class PrometheusMetrics(Recorder):
    """ExchangeObserver and HttpMetrics.

    With PROMETHEUS_MULTIPROC_DIR in the environment (before the client library is imported) several workers count in
    files there, and any of them tells the sums of all.
    """

    def __init__(
        self,
        configured_name: Callable[[str], str | None],
        report: Callable[[], HealthReport],
        load: Load,
        problems_of_file: Callable[[], Sequence[str]],
    ) -> None:
        # They would be a second series for each one, and tell what nobody asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        super().__init__(Instruments(self._registry), configured_name)
        self._shared = shared_directory()
        self._gauges = Gauges(self._registry, report, load, problems_of_file, is_multiprocess=self._shared is not None)
        self._processes = WorkerProcesses(self._registry) if self._shared is not None else None
        if self._shared is None:
            ProcessCollector(registry=self._registry)

    async def page(self, accept: str) -> MetricsPage:
        """In a thread: thousands of series take longer than other requests should wait."""
        self.refresh()
        encode, content_type = choose_encoder(accept)
        return MetricsPage(content_type, await asyncio.to_thread(lambda: encode(self._everything())))

    def refresh(self) -> None:
        """Count what waits, and look at what is true now."""
        self.fold()
        self._gauges.refresh()
        if self._processes is not None:
            self._processes.refresh()

    async def tick(self) -> None:
        """To be called about once a second: a worker's gauges are read by others, which cannot ask for them."""
        if self._shared is not None:
            self.refresh()
        else:
            self.fold()

    def end(self) -> None:
        """Count the last requests, and what else is counted; a worker that ends has no gauges."""
        self.refresh()
        if self._shared is not None:
            leave(self._shared)

    def count_booked(self, rows: int) -> None:
        """So many have been since the start. Also after `end`: the ledger books its last rows then."""
        self._gauges.count_booked(rows)

    def _everything(self) -> CollectorRegistry:
        return self._registry if self._shared is None else merged(self._shared)


@asynccontextmanager
async def counting(metrics: PrometheusMetrics) -> AsyncIterator[PrometheusMetrics]:
    """Ticks until the end."""
    try:
        async with repeating(metrics.tick, lambda: _TICK_SECONDS, "metrics"):
            yield metrics
    finally:
        metrics.end()
