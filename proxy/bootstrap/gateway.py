"""Composing the whole gateway."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from proxy.api.app_keys import Gateway
from proxy.api.cross_origin import CrossOrigins
from proxy.api.handlers.health import health_report
from proxy.api.routes import create_admin_site, create_api, create_metrics_site
from proxy.application.allowances import Rulebook
from proxy.application.booking import Accounting
from proxy.application.gatekeeper import Gatekeeper
from proxy.application.idempotency import Idempotency
from proxy.application.load import Load
from proxy.application.observing import Observers
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.payloads import NoPayloads, PayloadMode, PayloadStore
from proxy.application.self_service import SelfService
from proxy.application.siblings import NoSiblings
from proxy.application.traces import TraceMode, TraceStore
from proxy.application.unpriced import UnpricedModels
from proxy.bootstrap.access import AccessControl, access_control
from proxy.bootstrap.administration import admin_api
from proxy.bootstrap.bills import following_prices_and_bills
from proxy.bootstrap.blueprint import Blueprint
from proxy.bootstrap.budgets import budget_book
from proxy.bootstrap.config_file import configuration_file
from proxy.bootstrap.configuration import Configuration, following
from proxy.bootstrap.idempotency import idempotency_store
from proxy.bootstrap.limits import rate_limiter
from proxy.bootstrap.load import load_of
from proxy.bootstrap.metrics import metrics_of
from proxy.bootstrap.runtimes import Runtimes
from proxy.bootstrap.siblings import reload_notes, siblings_of
from proxy.bootstrap.spans import Tracing, tracing_of
from proxy.bootstrap.storage import arriving_database
from proxy.domain.rate_limits import Priority
from proxy.infrastructure.budgets.book import LeasedBudgets
from proxy.infrastructure.chat_completion.registry import service_factory
from proxy.infrastructure.demo import demo_upstream
from proxy.infrastructure.deployments.fleet import Fleet, running_fleet
from proxy.infrastructure.health import HealthMonitor, HttpHealthChecker, watching
from proxy.infrastructure.http import client_session
from proxy.infrastructure.ledger.ledger import Fsync, SpoolLedger, spool_ledger
from proxy.infrastructure.ledger.segment import Sync
from proxy.infrastructure.limits.limiter import CountingLimiter
from proxy.infrastructure.payloads.redaction import load_redaction
from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.payloads.store import BackgroundPayloads, storing
from proxy.infrastructure.periodic import once
from proxy.infrastructure.persistence.accounts import LedgerAccounts
from proxy.infrastructure.persistence.arrival import Arrival
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.purge import purging
from proxy.infrastructure.persistence.request_archive import LedgerRequestArchive
from proxy.infrastructure.persistence.retention import LedgerUpkeep, keeping_up
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.price_book import RefreshingPriceBook, price_book
from proxy.infrastructure.resilience import Timing
from proxy.infrastructure.served_models import ServedModels
from proxy.infrastructure.siblings import SharedDirectory, telling
from proxy.infrastructure.telemetry.metrics.metrics import PrometheusMetrics
from proxy.infrastructure.traces import trace_store
from proxy.settings import Settings

_SPOOL_DIRECTORY = "spool"


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """The application, those for ports of their own (the admin API's if it has one), and what a command line says.

    `stop_serving` is told how to know whether it is only this worker that ends, and others take its place.
    """

    app: web.Application
    admin: web.Application | None
    metrics: web.Application
    upstream: str
    database: str
    stop_serving: Callable[[Callable[[], bool]], None]
    reload: Callable[[], Coroutine[Any, Any, None]]
    load: Load
    priority_of: Callable[[str | None], Priority]
    has_priorities: Callable[[], bool]
    uses_demo: bool
    example_model: str


def import_for_workers(settings: Settings) -> None:
    """What some settings alone ask for is imported when used; with workers before the fork, so that they share it."""
    if settings.oidc_issuer is not None:
        importlib.import_module("proxy.bootstrap.tokens")
    if settings.llmgateway_valkey_url is not None:
        importlib.import_module("proxy.bootstrap.valkey")


@dataclass(frozen=True, slots=True)
class _Books:
    """Where requests are booked and by what prices, and what is kept beside their rows."""

    payloads: PayloadStore
    traces: TraceStore
    pricing: PiccoloModelPricing
    prices: RefreshingPriceBook
    ledger: SpoolLedger
    upkeep: LedgerUpkeep
    budgets: LeasedBudgets


@dataclass(frozen=True, slots=True)
class _Configured:
    """What requests are served by, and who follows the file that says so."""

    runtimes: Runtimes
    siblings: SharedDirectory | NoSiblings
    configuration: Configuration
    blueprint: Blueprint
    uses_demo: bool


@dataclass(frozen=True, slots=True)
class _Parts:
    """All that has been started."""

    arrival: Arrival
    tracing: Tracing
    fleet: Fleet
    session: ClientSession
    books: _Books
    configured: _Configured
    unpriced: UnpricedModels
    limiter: CountingLimiter
    monitor: HealthMonitor
    load: Load
    idempotency: Idempotency
    access: AccessControl
    metrics: PrometheusMetrics


@asynccontextmanager
async def running_gateway(
    settings: Settings,
    timing: Timing | None = None,
    rules: Callable[[], Rulebook] | None = None,
    sync: Sync = os.fdatasync,
) -> AsyncIterator[RunningGateway]:
    """Everything started in order, and stopped in the reverse order at the end.

    database → spans → deployments → client session → payloads and traces → prices → ledger → budgets → the demo
    (without a key) → configuration → rate limits → health checks → asking for prices and bills → idempotency keys →
    access → metrics → telling other workers. The ledger is flushed after the last request has ended and before its
    database is closed. `timing` is how retries and the breaker see time pass; the real thing by default. While
    PostgreSQL cannot be reached all but the database's own tasks runs. `rules` gives the limits and budgets that hold
    for everyone, in the place of the database's. `sync` forces the ledger's spool to the disk.
    """
    timing = timing or Timing()
    async with AsyncExitStack() as stack:
        parts = await _started(settings, timing, sync, stack)
        gateway = _gateway(settings, timing, parts, rules)
        siblings = parts.configured.siblings
        if isinstance(siblings, SharedDirectory):
            await stack.enter_async_context(telling(siblings, lambda: health_report(gateway)))
        yield _running(settings, parts, gateway)


async def _started(settings: Settings, timing: Timing, sync: Sync, stack: AsyncExitStack) -> _Parts:
    arrival = await stack.enter_async_context(arriving_database(settings))
    tracing = await stack.enter_async_context(tracing_of(settings))
    fleet = await stack.enter_async_context(running_fleet(service_factory, timing, tracing.make_resilience))
    session = await stack.enter_async_context(
        client_session(settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds)
    )
    when_all_is_booked = stack.enter_context(ExitStack())
    books = await _books(settings, arrival, session, sync, stack)
    configured = await _configured(settings, arrival.database, fleet, books.pricing, stack)
    unpriced = UnpricedModels()
    limiter = await stack.enter_async_context(rate_limiter(settings, books.ledger.directory))
    checker = HttpHealthChecker(session, fleet.endpoints)
    monitor = HealthMonitor(arrival, books.ledger, books.upkeep, checker, fleet, unpriced, limiter, configured.siblings)
    await stack.enter_async_context(watching(monitor))
    if not configured.uses_demo:  # whose prices are not real
        asked = partial(fleet.endpoints, "openrouter")
        await stack.enter_async_context(following_prices_and_bills(settings, asked, session, arrival, books.prices))
    load = load_of(settings)
    idempotency = Idempotency(await stack.enter_async_context(idempotency_store(settings, timing.clock)))
    access = await stack.enter_async_context(access_control(settings, arrival, session))
    metrics = await stack.enter_async_context(metrics_of(configured.runtimes, monitor, load, configured.configuration))
    when_all_is_booked.callback(lambda: metrics.count_booked(books.ledger.booked_rows()))
    return _Parts(
        arrival=arrival,
        tracing=tracing,
        fleet=fleet,
        session=session,
        books=books,
        configured=configured,
        unpriced=unpriced,
        limiter=limiter,
        monitor=monitor,
        load=load,
        idempotency=idempotency,
        access=access,
        metrics=metrics,
    )


async def _books(
    settings: Settings, arrival: Arrival, session: ClientSession, sync: Sync, stack: AsyncExitStack
) -> _Books:
    database = arrival.database
    upkeep = LedgerUpkeep(database, settings.ledger_retention_days)
    await stack.enter_async_context(once(arrival.here, keeping_up(upkeep)))
    payloads = await _payload_store(settings, arrival, stack)
    traces = await stack.enter_async_context(
        trace_store(
            database,
            TraceMode(settings.llmgateway_traces),
            settings.trace_retention_days,
            settings.ledger_retention_days,
        )
    )
    pricing = PiccoloModelPricing(database)
    prices = await stack.enter_async_context(price_book(pricing, arrival.here))
    writer = await stack.enter_async_context(row_writer(database))
    ledger = await stack.enter_async_context(
        spool_ledger(
            Path(settings.llmgateway_data_dir) / _SPOOL_DIRECTORY,
            writer,
            max_bytes=settings.ledger_spool_max_bytes,
            fsync=Fsync(settings.ledger_fsync),
            sync=sync,
        )
    )
    budgets = await stack.enter_async_context(budget_book(settings, database, ledger, session))
    return _Books(payloads, traces, pricing, prices, ledger, upkeep, budgets)


async def _configured(
    settings: Settings, database: Database, fleet: Fleet, pricing: PiccoloModelPricing, stack: AsyncExitStack
) -> _Configured:
    path = configuration_file(settings)
    uses_demo = path is None and settings.uses_demo_upstream
    demo_url = await stack.enter_async_context(demo_upstream()) if uses_demo else None
    runtimes = Runtimes(fleet, pricing)
    siblings = siblings_of(settings, fleet, lambda: configuration.reload_and_tell(None))
    configuration = Configuration(path, settings, runtimes, reload_notes(database, siblings))
    blueprint = await configuration.begin(demo_url)
    await stack.enter_async_context(following(configuration))
    return _Configured(runtimes, siblings, configuration, blueprint, uses_demo)


def _gateway(settings: Settings, timing: Timing, parts: _Parts, rules: Callable[[], Rulebook] | None) -> Gateway:
    """The use cases, as the HTTP layer works with them."""
    books, runtimes, access, database = parts.books, parts.configured.runtimes, parts.access, parts.arrival.database
    metrics, tracing = parts.metrics, parts.tracing
    usage = LedgerUsageReports(database)
    return Gateway(
        orchestrator=KernelOrchestrator(
            runtime=runtimes,
            ledger=books.ledger,
            accounting=Accounting(books.prices, parts.unpriced, settings.budget_unpriced_hold_usd),
            clock=timing.clock,
            observer=metrics if tracing.observer is None else Observers(metrics, tracing.observer),
            cohort=parts.load.cohort,
        ),
        authenticator=access.authenticator,
        gatekeeper=Gatekeeper(
            parts.limiter,
            books.budgets,
            rules or (lambda: access.rules.rulebook(runtimes.current().model_groups)),
            settings.budget_default_output_tokens,
            lambda model: route.name if (route := runtimes.current().catalog.resolve(model)) else model,
        ),
        models=ServedModels(
            runtimes, parts.session, parts.fleet.endpoints, books.prices, settings.models_cache_seconds
        ),
        health=parts.monitor,
        configuration=parts.configured.configuration,
        usage=usage,
        payloads=books.payloads,
        idempotency=parts.idempotency,
        traces=books.traces,
        requests=LedgerRequestArchive(database),
        self_service=SelfService(usage, LedgerAccounts(database), parts.limiter),
        load=parts.load,
        metrics=metrics,
        siblings=parts.configured.siblings,
        max_body_bytes=settings.max_body_bytes,
        spans=tracing.spans,
        cross_origins=CrossOrigins(origins) if (origins := settings.cors_allowed_origins) else None,
    )


def _running(settings: Settings, parts: _Parts, gateway: Gateway) -> RunningGateway:
    configured, authenticator = parts.configured, parts.access.authenticator
    admin = admin_api(
        parts.arrival.database,
        lambda: configured.runtimes.current().model_groups,
        lambda: configured.runtimes.current().deployments,
        configured.configuration,
        configured.siblings,
        parts.books.prices.refresh,
        parts.access.take_up,
    )
    has_own_port = settings.llmgateway_admin_port is not None
    return RunningGateway(
        app=create_api(gateway, None if has_own_port else admin),
        admin=create_admin_site(gateway, admin) if has_own_port else None,
        metrics=create_metrics_site(gateway),
        upstream="demo upstream (built in)" if configured.uses_demo else configured.blueprint.summary(),
        database=parts.arrival.description,
        stop_serving=parts.monitor.stop_serving,
        reload=lambda: configured.configuration.reload_and_tell("signal"),
        load=parts.load,
        priority_of=authenticator.priority_of,
        has_priorities=lambda: authenticator.directory.has_priorities,
        uses_demo=configured.uses_demo,
        example_model=configured.blueprint.example_model(),
    )


async def _payload_store(settings: Settings, arrival: Arrival, stack: AsyncExitStack) -> PayloadStore:
    """Payloads of earlier days are forgotten in time also when none are stored any more."""
    mode = PayloadMode(settings.llmgateway_store_payloads)
    redaction = load_redaction(settings.payload_redaction) if settings.payload_redaction else None
    rows = PayloadRows(arrival.database)
    await stack.enter_async_context(once(arrival.here, purging(rows, "payloads", settings.payload_retention_days)))
    if mode is PayloadMode.OFF:
        return NoPayloads()
    store = BackgroundPayloads(rows, mode, settings.payload_max_bytes, redaction)
    await stack.enter_async_context(storing(store))
    return store
