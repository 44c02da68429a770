"""Every counter and histogram: its name, its labels, and what it counts. docs/monitoring.md has them as a table.

Label values come from the configuration and from the gateway's own words, never from requests: what a client can choose
could be secret, and would make series without end.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from proxy.infrastructure.telemetry.metrics.tallies import BatchHistogram, Spread, Tally

_WHO = ("model", "provider")
_WHERE = ("provider", "deployment")
_REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_FIRST_BYTE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0)
_OVERHEAD_SECONDS = (0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_WAIT_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instruments:
    """What booked requests and ended answers are counted in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._all: list[Tally | Spread] = []
        self.responses = self._counter("http_responses", "HTTP answers of all routes.", ("route", "status_class"))
        self.requests = self._counter("requests", "Booked requests.", (*_WHO, "outcome", "status_class", "stream"))
        self.errors = self._counter("request_errors", "Booked requests that failed, by what failed.", (*_WHO, "error"))
        self.refusals = self._counter("limit_refusals", "Requests over a rate limit or budget.", ("kind", "scope"))
        self.durations = self._histogram(
            "request_duration_seconds",
            "Of requests that were sent to a provider, until the answer's last byte.",
            ("model", "stream"),
            _REQUEST_SECONDS,
        )
        self.first_bytes = self._histogram(
            "time_to_first_byte_seconds", "Of streams, until their first byte.", _WHO, _FIRST_BYTE_SECONDS
        )
        self.overheads = self._histogram(
            "overhead_seconds",
            "The gateway's own share of the time up to an answer's first byte.",
            ("stream",),
            _OVERHEAD_SECONDS,
        )
        self.input_tokens = self._counter("input_tokens", "Tokens of prompts, cached ones too.", _WHO)
        self.output_tokens = self._counter("output_tokens", "Tokens of answers, reasoning too.", _WHO)
        self.cached_tokens = self._counter("cached_input_tokens", "Input tokens that the provider had cached.", _WHO)
        self.reasoning_tokens = self._counter("reasoning_tokens", "Output tokens spent on reasoning.", _WHO)
        self.cost = self._counter("cost_usd", "What was paid, as billed or as computed.", (*_WHO, "source"))
        self.unknown_costs = self._counter("cost_unknown_requests", "Calls that may have cost something.", _WHO)
        self.attempts = self._counter("upstream_attempts", "Deployments' turns at a request.", (*_WHERE, "reason"))
        self.retries = self._counter("upstream_retries", "Calls that were made again at the same deployment.", _WHERE)
        self.upstream_errors = self._counter("upstream_errors", "Turns that failed, by why.", (*_WHERE, "error"))
        self.loop_lags = self._histogram(
            "event_loop_lag_seconds", "How late the event loop serves what is ready.", (), _LAG_SECONDS
        )
        self.waits = self._histogram(
            "queue_wait_seconds", "Of calls that had to wait for a deployment.", ("deployment",), _WAIT_SECONDS
        )

    def flush(self) -> None:
        """Hand over what was counted since the last time."""
        for each in self._all:
            each.flush()

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Tally:
        tally = Tally(Counter(f"llmgateway_{name}", documentation, labels, registry=self._registry))
        self._all.append(tally)
        return tally

    def _histogram(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> Spread:
        histogram = BatchHistogram(f"llmgateway_{name}", documentation, labels, registry=self._registry, buckets=bounds)
        spread = Spread(histogram, bounds)
        self._all.append(spread)
        return spread
