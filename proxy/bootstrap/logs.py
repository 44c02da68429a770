"""Setting up logging, before anything else runs; and whether its lines say which span they belong to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import structlog

from proxy.infrastructure.telemetry.logs import configure_logging
from proxy.settings import Settings

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def log_as_configured(settings: Settings) -> None:
    more: list[structlog.typing.Processor] = []
    if spans_are_wanted(settings):
        with suppress(ModuleNotFoundError):  # which is told when spans are made
            from proxy.infrastructure.telemetry.spans.log_lines import add_trace_ids  # noqa: PLC0415

            more.append(add_trace_ids)
    configure_logging(settings.llmgateway_log_level, settings.llmgateway_log_format, *more)


def spans_are_wanted(settings: Settings, environment: Mapping[str, str] = os.environ) -> bool:
    """By LLMGATEWAY_OTEL; else if the environment says where spans go, and not that they are not wanted."""
    if settings.llmgateway_otel == "off" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if settings.llmgateway_otel == "on":
        return True
    is_off = environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    return not is_off and any(environment.get(name) for name in _ENDPOINTS)
