"""Composing who knows idempotency keys: all gateways, the workers of this machine, or this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from proxy.application.idempotency import IdempotencyStore
from proxy.infrastructure.idempotency.files import FileRegistry, forgetting
from proxy.infrastructure.idempotency.memory import memory_store
from proxy.infrastructure.idempotency.registry import KeyRegistry
from proxy.infrastructure.idempotency.shared import shared_store
from proxy.settings import Settings

_DIRECTORY = "idempotency"


@asynccontextmanager
async def idempotency_store(settings: Settings, clock: Callable[[], float]) -> AsyncIterator[IdempotencyStore]:
    """`clock` gives seconds."""
    directory = Path(settings.llmgateway_data_dir) / _DIRECTORY
    registry = _registry(settings, directory)
    async with AsyncExitStack() as stack:
        if not isinstance(registry, FileRegistry):
            await stack.enter_async_context(forgetting(directory))
        if registry is None:
            yield await stack.enter_async_context(memory_store(clock))
        else:
            yield await stack.enter_async_context(shared_store(registry, settings.request_timeout_seconds, clock))


def _registry(settings: Settings, directory: Path) -> KeyRegistry | None:
    """None where nobody else has to know."""
    if settings.llmgateway_valkey_url is not None:
        from proxy.bootstrap.valkey import shared_registry  # noqa: PLC0415  # 8 MB that are for Valkey alone

        return shared_registry(settings, settings.llmgateway_valkey_url)
    return FileRegistry(directory) if settings.llmgateway_workers > 1 else None
