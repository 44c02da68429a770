"""Setting up logging, before anything else runs."""

from __future__ import annotations

from proxy.infrastructure.telemetry.logs import configure_logging
from proxy.settings import Settings


def log_as_configured(settings: Settings) -> None:
    configure_logging(settings.llmgateway_log_level, settings.llmgateway_log_format)
