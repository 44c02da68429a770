"""What is true at this moment: read from the health report when somebody asks."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN
from prometheus_client import CollectorRegistry, Counter, Gauge

from proxy import __version__
from proxy.application.load import Load, Refusal
from proxy.application.ports import HealthReport

_WHERE = ("provider", "deployment")
_BREAKER = {STATE_CLOSED: 0, STATE_HALF_OPEN: 1, STATE_OPEN: 2}
_Mode = Literal["livesum", "livemax", "livemin"]  # how the workers' values become one
# What changes none of the other workers' values. A page shows nothing infinite (`workers.merged`).
_GONE: Mapping[_Mode, float] = {"livesum": 0, "livemax": -math.inf, "livemin": math.inf}


class _Family:
    """A gauge with labels, of which only those of the last reading are shown.

    `gone` is what to write for all others, into a file that workers share and that cannot forget.
    """

    def __init__(self, gauge: Gauge, gone: float | None) -> None:
        self._gauge = gauge
        self._gone = gone
        self._shown: set[tuple[str, ...]] = set()

    def show(self, values: Mapping[tuple[str, ...], float]) -> None:
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._shown - values.keys():
            if self._gone is None:
                self._gauge.remove(*labels)
            else:
                self._gauge.labels(*labels).set(self._gone)
        self._shown = set(values)


class Gauges:
    """Of one process. With several workers each writes its own, and they are merged as the gauge's mode says."""

    def __init__(
        self,
        registry: CollectorRegistry,
        report: Callable[[], HealthReport],
        load: Load,
        problems_of_file: Callable[[], Sequence[str]],
        *,
        is_multiprocess: bool,
    ) -> None:
        self._registry = registry
        self._report = report
        self._load = load
        self._problems_of_file = problems_of_file
        self._is_multiprocess = is_multiprocess
        self._build_info()
        self._requests = self._gauge("requests_in_flight", "Chat completions that are being served.")
        self._most_requests = self._gauge("requests_in_flight_limit", "As many as may be.")
        self._connections = self._gauge("connections", "Connections of clients.")
        self._is_late = self._gauge("overloaded", "1 while requests are turned away since all is late.", "livemax")
        self._turned_away = Counter(
            "llmgateway_overload_refusals", "Requests that were turned away unread.", ["reason"], registry=registry
        )
        self._turned_away_before = dict.fromkeys(Refusal, 0)
        self._breakers = self._family("breaker_state", "0 closed, 1 half-open (probing), 2 open.", "livemax")
        self._calls = self._family("deployment_calls_in_flight", "Calls that a deployment is answering.")
        self._queues = self._family("deployment_queue_length", "Calls that wait for a deployment.")
        self._drained = self._family("deployment_drained", "1 while it gets no new requests.", "livemax")
        self._limit_queue = self._gauge("limit_queue_length", "Requests that wait for a place of a rate limit.")
        self._database = self._gauge("database_up", "Whether the database answers.", "livemin")
        self._can_book = self._gauge("ledger_can_book", "Whether rows reach the database.", "livemin")
        self._can_sync = self._gauge("ledger_can_sync", "Whether the spool reaches the disk.", "livemin")
        self._waiting_rows = self._gauge("ledger_waiting_rows", "Rows in the spool that are not in the database.")
        self._oldest = self._gauge("ledger_oldest_waiting_seconds", "How long the oldest of them waits.", "livemax")
        self._spool = self._gauge("ledger_spool_bytes", "Disk that the spool takes.")
        self._set_aside = self._gauge("ledger_set_aside_rows", "Rows that the database refused.")
        self._booked = Counter("llmgateway_ledger_booked_rows", "Rows brought into the database.", registry=registry)
        self._booked_before = 0
        self._unpriced = Counter("llmgateway_unpriced_requests", "Answers of unknown price.", registry=registry)
        self._unpriced_before = 0
        self._providers = self._family("provider_up", "Whether it answered the last check.", "livemin", ("provider",))
        self._last_reload = self._gauge(
            "config_last_reload_successful",
            "0 while the file cannot be used and the last one stays.",
            "livemin",
        )
        self._ready = self._gauge("ready", "Whether requests are served.", "livemin")
        self._valkey: Gauge | None = None

    def refresh(self) -> None:
        """Show what is true now."""
        report = self._report()
        self._show_load()
        self._ready.set(not report.cannot_serve)
        self._last_reload.set(not self._problems_of_file())
        self._database.set(report.database["status"] == "up")
        self._show_deployments(report.deployments)
        self._show_ledger(report.ledger)
        self._show_limits(report.limits)
        self._unpriced.inc(report.unpriced_requests - self._unpriced_before)
        self._unpriced_before = report.unpriced_requests
        checked = {(name,): state["healthy"] for name, state in report.providers.items()}
        self._providers.show({labels: bool(ok) for labels, ok in checked.items() if ok is not None})

    def _show_load(self) -> None:
        load = self._load
        self._requests.set(load.in_flight)
        self._most_requests.set(load.most)
        self._connections.set(load.connections)
        self._is_late.set(load.patience.is_late)
        for reason, before in self._turned_away_before.items():
            self._turned_away.labels(reason.value).inc(load.refused[reason] - before)
            self._turned_away_before[reason] = load.refused[reason]

    def _show_deployments(self, deployments: Mapping[str, Mapping[str, Any]]) -> None:
        by_labels: dict[tuple[str, ...], Mapping[str, Any]] = {
            (state["provider"], name): state for name, state in deployments.items()
        }
        self._breakers.show(_each(by_labels, lambda state: _BREAKER[state["circuit_breaker"]]))
        self._calls.show(_each(by_labels, lambda state: state["in_flight"]))
        self._queues.show(_each(by_labels, lambda state: state["queued"]))
        self._drained.show(_each(by_labels, lambda state: state["drained"]))

    def _show_ledger(self, ledger: Mapping[str, Any]) -> None:
        self._can_book.set(ledger["can_book"])
        self._can_sync.set(ledger["sync_error"] is None)
        self._waiting_rows.set(ledger["waiting_rows"])
        self._oldest.set(ledger["oldest_waiting_seconds"])
        self._spool.set(ledger["spool_bytes"])
        self._set_aside.set(ledger["set_aside_rows"])
        self.count_booked(ledger["booked_rows"])

    def count_booked(self, rows: int) -> None:
        """So many have been since the start."""
        self._booked.inc(rows - self._booked_before)
        self._booked_before = rows

    def _show_limits(self, limits: Mapping[str, Any]) -> None:
        self._limit_queue.set(limits["waiting"])
        if limits["valkey"] is not None:
            if self._valkey is None:
                self._valkey = self._gauge("valkey_up", "Whether limits are shared through it.", "livemin")
            self._valkey.set(limits["valkey"] == "up")

    def _build_info(self) -> None:
        info = self._gauge("build_info", "Of what is running; always 1.", "livemax", ("version", "python_version"))
        info.labels(__version__, platform.python_version()).set(1)

    def _gauge(self, name: str, documentation: str, mode: _Mode = "livesum", labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"llmgateway_{name}", documentation, labels, registry=self._registry, multiprocess_mode=mode)

    def _family(
        self, name: str, documentation: str, mode: _Mode = "livesum", labels: Iterable[str] = _WHERE
    ) -> _Family:
        gauge = self._gauge(name, documentation, mode, tuple(labels))
        return _Family(gauge, _GONE[mode] if self._is_multiprocess else None)


def _each(
    states: Mapping[tuple[str, ...], Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]
) -> dict[tuple[str, ...], float]:
    return {labels: value(state) for labels, state in states.items()}
