"""What handlers and middlewares find in the application and in a request."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from proxy.api.cross_origin import CrossOrigins
from proxy.application.access import Authenticator
from proxy.application.exchange import Exchange
from proxy.application.gatekeeper import Gatekeeper
from proxy.application.idempotency import Idempotency
from proxy.application.load import Load
from proxy.application.observing import HttpMetrics
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.payloads import PayloadStore
from proxy.application.ports import ConfigurationControl, HealthSource, ModelCatalog, UsageReports
from proxy.application.self_service import SelfService
from proxy.application.siblings import Siblings
from proxy.application.spans import Spans
from proxy.application.traces import RequestArchive, TraceStore
from proxy.domain.access.principals import Principal


@dataclass(frozen=True, slots=True)
class Gateway:
    """The use cases and limits that the HTTP layer works with."""

    orchestrator: KernelOrchestrator
    authenticator: Authenticator
    gatekeeper: Gatekeeper
    models: ModelCatalog
    health: HealthSource
    configuration: ConfigurationControl
    usage: UsageReports
    payloads: PayloadStore
    idempotency: Idempotency
    traces: TraceStore
    requests: RequestArchive
    self_service: SelfService
    load: Load
    metrics: HttpMetrics
    siblings: Siblings
    max_body_bytes: int
    spans: Spans | None = None
    cross_origins: CrossOrigins | None = None


GATEWAY = web.AppKey("gateway", Gateway)

REQUEST_ID = web.RequestKey("request_id", str)
EXCHANGE = web.RequestKey("exchange", Exchange)
PRINCIPAL = web.RequestKey("principal", Principal)
