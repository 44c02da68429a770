"""Sending spans to a collector by OTLP over HTTP, as the standard variables `OTEL_…` say."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from proxy import __version__

_LAST_SECONDS = 5.0
_logger = logging.getLogger(__name__)


def exporting_provider() -> TracerProvider:
    """What makes tracers whose spans are exported in the background, in batches.

    It is no global one, so that libraries which look for that stay silent. Raises ValueError for variables `OTEL_…`
    that cannot be used, as importing this module may.
    """
    processor = BatchSpanProcessor(OTLPSpanExporter())
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


@asynccontextmanager
async def tracer_of(provider: TracerProvider) -> AsyncIterator[Tracer]:
    """A tracer of ours; what is left of its spans is sent at the end."""
    try:
        yield provider.get_tracer("llmgateway", __version__)
    finally:
        await _end(provider)


def _resource() -> Resource:
    """As the environment has it; our name is for those who give none."""
    resource = Resource.create({SERVICE_VERSION: __version__})
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "llmgateway"}))
    return resource


async def _end(provider: TracerProvider) -> None:
    """A collector that is away must not hold up whoever stops the gateway."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=shut_down, name="last spans", daemon=True).start()
    try:
        async with asyncio.timeout(_LAST_SECONDS):
            await ended.wait()
    except TimeoutError:
        _logger.warning("spans were not sent", extra={"waited_seconds": _LAST_SECONDS})
