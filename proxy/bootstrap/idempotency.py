"""Composing who knows idempotency keys: all gateways, the workers of this machine, or this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from proxy.application.idempotency import IdempotencyStore
from proxy.bootstrap.valkey import redis_url
from proxy.infrastructure.idempotency.files import FileRegistry
from proxy.infrastructure.idempotency.memory import memory_store
from proxy.infrastructure.idempotency.registry import KeyRegistry
from proxy.infrastructure.idempotency.shared import shared_store
from proxy.infrastructure.idempotency.valkey import ValkeyRegistry
from proxy.settings import Settings

_DIRECTORY = "idempotency"


def idempotency_store(settings: Settings, clock: Callable[[], float]) -> AbstractAsyncContextManager[IdempotencyStore]:
    registry: KeyRegistry
    if settings.llmgateway_valkey_url is not None:
        url = redis_url(settings.llmgateway_valkey_url)
        registry = ValkeyRegistry(url, settings.valkey_deadline_seconds)
    elif settings.llmgateway_workers > 1:
        registry = FileRegistry(Path(settings.llmgateway_data_dir) / _DIRECTORY)
    else:
        return memory_store(clock)
    return shared_store(registry, settings.request_timeout_seconds, clock)
