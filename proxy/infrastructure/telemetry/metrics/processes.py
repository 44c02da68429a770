"""What the operating system says of the process: the client library's collector, in multiprocess mode, too."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

_SUMMED = ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds")
_CPU = "process_cpu_seconds"


class WorkerProcesses:
    """Workers' own figures, to be summed: the library's collector is silent about processes other than its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._collector = ProcessCollector(registry=None)
        self._gauges = {
            name: Gauge(name, "Of all workers together.", registry=registry, multiprocess_mode="livesum")
            for name in _SUMMED
        }
        self._cpu = Counter(_CPU, "Of all workers together.", registry=registry)
        self._cpu_before = 0.0

    def refresh(self) -> None:
        for metric in self._collector.collect():
            for sample in metric.samples:
                if sample.name in self._gauges:
                    self._gauges[sample.name].set(sample.value)
                elif metric.name == _CPU:
                    self._cpu.inc(sample.value - self._cpu_before)
                    self._cpu_before = sample.value
