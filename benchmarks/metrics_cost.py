"""What metrics cost: CPU for each request, from what is noted on its path to Prometheus's counters, and for a scrape.

python -m benchmarks.metrics_cost --requests 50000 [--multiprocess]

Claim: metrics cost a request 7-9 µs of CPU, less than 10.
Short: --requests 5000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

_ROUNDS = 7
_MODELS, _STREAMED = 20, 2
_BATCH = 1000


@dataclass
class NoLedger:
    """A Ledger that keeps nothing, so that only the rest is measured."""

    waits_for_disk = False

    def admit(self) -> None:
        pass

    def begin(self, intent: Any) -> None:
        pass

    def generating(self, request: UUID, generation_id: str) -> None:
        pass

    def settle(self, row: Any) -> None:
        pass

    async def durable(self) -> None:
        pass


def booked_exchanges(count: int) -> list[Any]:
    """Requests that one deployment has answered, half of them streams, for some models."""
    from proxy.application.attempts import Attempt
    from proxy.application.booking import Accounting
    from proxy.application.exchange import Exchange
    from proxy.application.ports import LiveDeployment
    from proxy.application.unpriced import UnpricedModels
    from proxy.application.upstream import UpstreamCall
    from proxy.domain.catalog import Deployment
    from proxy.domain.chat import AnswerFacts, ChatRequest, Usage
    from proxy.domain.routing import Candidate
    from proxy.domain.values import CostAmount

    class Said:
        def facts(self) -> AnswerFacts:
            return AnswerFacts(usage=Usage(1200, 340, cost=CostAmount(Decimal("0.00123"))), model="m")

        def estimated_output_tokens(self) -> int:
            return 0

    class NoPrices:
        def current(self) -> dict[str, Any]:
            return {}

    accounting = Accounting(NoPrices(), UnpricedModels())
    exchanges = []
    for number in range(count):
        model = f"model-{number % _MODELS}"
        candidate = Candidate(Deployment(name=f"{model}/one", provider="one", model="m"), model, "")
        call = UpstreamCall(b"", "m", 0.0, attempts=1, upstream_seconds=0.1, answer=Said())
        attempt = Attempt(candidate, cast("LiveDeployment", _Silent()), 4, call=call)
        exchange = Exchange(NoLedger(), accounting, "req-1")
        exchange.asked(ChatRequest(b"{}", model, stream=number % _STREAMED == 0, members={}))
        exchange.walked = [attempt]
        exchange.calling(candidate, call)
        exchange.answered_by(call)
        exchange.answering(200)
        exchange.settle()
        exchanges.append(exchange)
    return exchanges


class _Silent:
    def used(self, tokens: int) -> None:
        pass


def metrics_of(exchanges: list[Any]) -> Any:
    from proxy.application.load import Load
    from proxy.application.ports import HealthReport
    from proxy.domain.overload import Patience
    from proxy.infrastructure.telemetry.metrics.metrics import PrometheusMetrics

    models = {exchange.booked.requested_model for exchange in exchanges}
    counts = ("waiting_rows", "oldest_waiting_seconds", "spool_bytes", "set_aside_rows", "booked_rows", "can_book")
    ledger = {**dict.fromkeys(counts, 0), "sync_error": None}
    report = HealthReport(database={"status": "up"}, ledger=ledger, limits={"waiting": 0, "valkey": None})
    load = Load(10, 10, 10, 10, Patience(0.0))
    return PrometheusMetrics(lambda model: model if model in models else None, lambda: report, load, lambda: ())


async def measure(requests: int) -> None:
    exchanges = booked_exchanges(_BATCH)
    metrics = metrics_of(exchanges)
    noting, all_of_it = [], []
    for _ in range(_ROUNDS):
        noted = counted = 0.0
        for _ in range(requests // _BATCH):
            began = time.process_time()
            for exchange in exchanges:
                metrics.settled(exchange)
                metrics.responded("/v1/chat/completions", 200)
            metrics.fold()
            counted += time.process_time() - began
            began = time.process_time()
            for exchange in exchanges:
                facts_of(exchange)
            noted += time.process_time() - began
        all_of_it.append(counted / requests * 1e6)
        noting.append(noted / requests * 1e6)
    scrapes, page = list[float](), await metrics.page("")
    for _ in range(_ROUNDS):
        began = time.process_time()
        page = await metrics.page("")
        scrapes.append((time.process_time() - began) * 1000)
    print(f"CPU a request: {statistics.median(all_of_it):.1f} us (best {min(all_of_it):.1f}), of which on its path")
    print(f"{statistics.median(noting):.1f} us; a scrape of {len(page.body) // 1024} KiB: {min(scrapes):.1f} ms")


def facts_of(exchange: Any) -> Any:
    from proxy.application.observing import facts_of as facts

    return facts(exchange)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--multiprocess", action="store_true", help="as a worker, whose counters are in files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        if arguments.multiprocess:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # before the client library is imported
            assert "prometheus_client" not in sys.modules
        asyncio.run(measure(arguments.requests))


if __name__ == "__main__":
    main()
