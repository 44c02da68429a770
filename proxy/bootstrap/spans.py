"""What makes spans."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.application.observing import ExchangeObserver
from proxy.application.spans import Spans
from proxy.bootstrap.logs import spans_are_wanted
from proxy.domain.errors import InvalidValue
from proxy.infrastructure.breaker import Breaker
from proxy.infrastructure.deployments.fleet import DeploymentSpec, MakeResilience, plain_resilience
from proxy.infrastructure.resilience import Resilience, Timing
from proxy.infrastructure.retry_budget import RetryBudget
from proxy.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_logger = logging.getLogger(__name__)
_EXTRA = "pip install 'llmgateway[otel]'"


@dataclass(frozen=True, slots=True)
class Tracing:
    """What looks on at requests, if anything does."""

    spans: Spans | None = None
    observer: ExchangeObserver | None = None
    make_resilience: MakeResilience = plain_resilience


@asynccontextmanager
async def tracing_of(settings: Settings) -> AsyncIterator[Tracing]:
    """Raises InvalidValue when spans are asked for by LLMGATEWAY_OTEL and the package is not there, and for variables
    `OTEL_…` that it cannot use.
    """
    if not spans_are_wanted(settings):
        yield Tracing()
        return
    try:
        from proxy.infrastructure.telemetry.spans.exporting import exporting_provider, tracer_of  # noqa: PLC0415

        provider = exporting_provider()
    except ModuleNotFoundError as problem:
        if settings.llmgateway_otel == "on":
            raise InvalidValue(f"LLMGATEWAY_OTEL=on needs the package {problem.name}: {_EXTRA}") from problem
        _logger.warning("no spans are sent, a package is missing", extra={"package": problem.name, "remedy": _EXTRA})
        yield Tracing()
        return
    except ValueError as problem:
        raise InvalidValue(f"A variable OTEL_… has a value that cannot be used: {problem}") from problem
    async with tracer_of(provider) as tracer:
        yield _with(tracer)


def _with(tracer: Tracer) -> Tracing:
    from proxy.infrastructure.telemetry.spans.calls import CallSpanEnds, SpannedResilience  # noqa: PLC0415
    from proxy.infrastructure.telemetry.spans.server import OtelSpans  # noqa: PLC0415

    def make(spec: DeploymentSpec, breaker: Breaker, timing: Timing, budget: RetryBudget) -> Resilience:
        return SpannedResilience(tracer, spec, breaker, timing, budget)

    return Tracing(OtelSpans(tracer), CallSpanEnds(), make)
