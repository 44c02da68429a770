"""Composing the whole gateway."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from proxy.api.app_keys import Gateway
from proxy.api.routes import create_api
from proxy.application.kernel_factory import KernelFactory
from proxy.application.orchestrator import KernelOrchestrator
from proxy.application.payloads import NoPayloads, PayloadMode, PayloadStore
from proxy.application.unpriced import UnpricedModels
from proxy.bootstrap.storage import migrated_database
from proxy.domain.catalog import one_provider
from proxy.domain.routing import ModelPolicy, Surroundings, all_unused
from proxy.infrastructure.chat_completion.openrouter import OpenRouterChatCompletion
from proxy.infrastructure.chat_completion.wire import Wire, WireSettings
from proxy.infrastructure.demo import demo_upstream
from proxy.infrastructure.health import HealthMonitor, HttpHealthChecker, ProviderEndpoint, watching
from proxy.infrastructure.http import client_session
from proxy.infrastructure.ledger.ledger import Fsync, spool_ledger
from proxy.infrastructure.model_catalog import UpstreamModelCatalog
from proxy.infrastructure.payloads.redaction import load_redaction
from proxy.infrastructure.payloads.retention import purging
from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.payloads.store import BackgroundPayloads, storing
from proxy.infrastructure.persistence.bulk_insert import row_writer
from proxy.infrastructure.persistence.database import Database
from proxy.infrastructure.persistence.model_pricing import PiccoloModelPricing
from proxy.infrastructure.persistence.reconciliation import LedgerReconciliation
from proxy.infrastructure.persistence.retention import keeping_up
from proxy.infrastructure.persistence.usage_reports import LedgerUsageReports
from proxy.infrastructure.price_book import price_book
from proxy.infrastructure.price_sync import PriceSync, syncing
from proxy.infrastructure.reconcile import OpenRouterBills, reconciling
from proxy.infrastructure.resilience import Breaker, Resilience, RetryPolicy, Timing
from proxy.settings import Settings

_SERVICE_ID = "openrouter"
_SPOOL_DIRECTORY = "spool"


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """The application, and what a command line wants to say of it."""

    app: web.Application
    upstream: str
    database: str
    stop_serving: Callable[[], None]


@asynccontextmanager
async def running_gateway(settings: Settings, timing: Timing | None = None) -> AsyncIterator[RunningGateway]:
    """Everything started in order, and stopped in the reverse order at the end.

    database → upstream (the demo, without a key) → client session → prices → ledger → health checks. The ledger is
    flushed after the last request has ended and before its database is closed. `timing` is how retries and the breaker
    see time pass; the real thing by default.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(migrated_database(settings))
        wire_settings = await _upstream(settings, stack)
        session = await stack.enter_async_context(
            client_session(settings.connect_timeout_seconds, settings.stream_idle_timeout_seconds)
        )
        await stack.enter_async_context(keeping_up(database, settings.ledger_retention_days))
        payloads = await _payload_store(settings, database, stack)
        pricing = PiccoloModelPricing(database)
        prices = await stack.enter_async_context(price_book(pricing))
        writer = await stack.enter_async_context(row_writer(database))
        ledger = await stack.enter_async_context(
            spool_ledger(
                Path(settings.llmgateway_data_dir) / _SPOOL_DIRECTORY,
                writer,
                max_bytes=settings.ledger_spool_max_bytes,
                fsync=Fsync(settings.ledger_fsync),
            )
        )

        timing = timing or Timing()
        breaker = Breaker(
            wire_settings.provider,
            failure_threshold=settings.circuit_breaker_failure_threshold,
            cooldown_seconds=settings.circuit_breaker_cooldown_seconds,
            clock=timing.clock,
        )
        endpoint = _endpoint(wire_settings)
        unpriced = UnpricedModels()
        checker = HttpHealthChecker(session, {wire_settings.provider: endpoint})
        monitor = HealthMonitor(database, ledger, checker, {wire_settings.provider: breaker}, unpriced)
        await stack.enter_async_context(watching(monitor))
        if settings.prices_sync_seconds and not settings.uses_demo_upstream:
            sync = PriceSync(session, endpoint, pricing)
            await stack.enter_async_context(syncing(sync, settings.prices_sync_seconds, prices.refresh))
        if settings.reconcile_seconds and not settings.uses_demo_upstream:
            unsettled = LedgerReconciliation(database, wire_settings.provider)
            bills = OpenRouterBills(session, endpoint)
            await stack.enter_async_context(
                reconciling(unsettled, bills, settings.reconcile_seconds, settings.ledger_retention_days)
            )

        policy = _model_policy(settings)
        service = _service(settings, wire_settings, session, breaker, timing)
        app = create_api(
            Gateway(
                orchestrator=KernelOrchestrator(
                    kernel=KernelFactory([service], pricing, policy).create(),
                    service_id=_SERVICE_ID,
                    provider_name=wire_settings.provider,
                    surroundings=Surroundings(
                        one_provider(wire_settings.provider), policy, all_unused, prices.current, random.random
                    ),
                    ledger=ledger,
                    prices=prices,
                    unpriced=unpriced,
                    request_timeout_seconds=settings.request_timeout_seconds,
                    clock=timing.clock,
                ),
                models=UpstreamModelCatalog(session, endpoint, prices, settings.models_cache_seconds),
                health=monitor,
                usage=LedgerUsageReports(database),
                payloads=payloads,
                master_key=_secret(settings.llmgateway_master_key),
                max_body_bytes=settings.max_body_bytes,
                body_timeout_seconds=settings.body_timeout_seconds,
            )
        )
        upstream = "demo upstream (built in)" if settings.uses_demo_upstream else settings.openrouter_base_url
        yield RunningGateway(app, upstream, database.description, monitor.stop_serving)


async def _upstream(settings: Settings, stack: AsyncExitStack) -> WireSettings:
    demo = settings.uses_demo_upstream
    return WireSettings(
        provider="Demo" if demo else "OpenRouter",
        base_url=await stack.enter_async_context(demo_upstream()) if demo else settings.openrouter_base_url,
        api_key=_secret(settings.openrouter_api_key) or "",
        first_byte_timeout_seconds=settings.openrouter_timeout_seconds,
        idle_timeout_seconds=settings.stream_idle_timeout_seconds,
        stream_total_timeout_seconds=settings.stream_total_timeout_seconds,
        stream_hold_seconds=settings.stream_hold_seconds,
    )


async def _payload_store(settings: Settings, database: Database, stack: AsyncExitStack) -> PayloadStore:
    """Payloads of earlier days are forgotten in time also when none are stored any more."""
    mode = PayloadMode(settings.llmgateway_store_payloads)
    redaction = load_redaction(settings.payload_redaction) if settings.payload_redaction else None
    rows = PayloadRows(database)
    await stack.enter_async_context(purging(rows, settings.payload_retention_days))
    if mode is PayloadMode.OFF:
        return NoPayloads()
    store = BackgroundPayloads(rows, mode, settings.payload_max_bytes, redaction)
    await stack.enter_async_context(storing(store))
    return store


def _service(
    settings: Settings, wire_settings: WireSettings, session: aiohttp.ClientSession, breaker: Breaker, timing: Timing
) -> OpenRouterChatCompletion:
    retries = RetryPolicy(
        max_retries=settings.retry_max_retries,
        base_seconds=settings.retry_base_seconds,
        retry_after_cap_seconds=settings.retry_after_cap_seconds,
    )
    wire = Wire(wire_settings, session, Resilience(breaker, retries, timing))
    return OpenRouterChatCompletion(wire, ai_model_id=settings.auto_default_model, service_id=_SERVICE_ID)


def _endpoint(wire_settings: WireSettings) -> ProviderEndpoint:
    headers = {"Authorization": f"Bearer {wire_settings.api_key}"} if wire_settings.api_key else {}
    return ProviderEndpoint(wire_settings.base_url, headers)


def _model_policy(settings: Settings) -> ModelPolicy:
    return ModelPolicy(
        default_model=settings.auto_default_model,
        large_context_model=settings.auto_large_context_model,
        balanced_model=settings.auto_balanced_model,
        large_context_threshold_tokens=settings.auto_large_context_threshold_tokens,
        max_prompt_tokens=settings.auto_max_prompt_tokens,
    )


def _secret(value: object) -> str | None:
    get = getattr(value, "get_secret_value", None)
    return None if get is None else str(get())
