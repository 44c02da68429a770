"""Listening, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from contextlib import AsyncExitStack, suppress

from proxy.bootstrap.gateway import RunningGateway, running_gateway
from proxy.server.banner import banner
from proxy.server.descriptors import raise_limit
from proxy.server.site import serve_on
from proxy.settings import Settings


def listen(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError when the address cannot be had."""
    raise_limit()
    try:
        import uvloop  # noqa: PLC0415  # not on Windows
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """On a signal: take no more connections, let running requests finish, book everything, return."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with running_gateway(settings) as gateway, AsyncExitStack() as stack:
        if gateway.admin is not None and settings.llmgateway_admin_port is not None:
            await serve_on(gateway.admin, settings.llmgateway_admin_port, gateway, settings, stack)
        if settings.llmgateway_metrics_port is not None:
            await serve_on(gateway.metrics, settings.llmgateway_metrics_port, gateway, settings, stack)
        runner = await serve_on(gateway.app, settings.llmgateway_port, gateway, settings, stack)
        _keep_for_good()
        print(banner(gateway, runner.addresses[0], settings), file=sys.stderr, flush=True)  # noqa: T201
        _reload_on_signal(gateway)
        await stop.wait()
        gateway.stop_serving()
        await _until_nobody_comes(stop, settings.shutdown_delay_seconds)


async def _until_nobody_comes(stop: asyncio.Event, delay_seconds: float) -> None:
    """Balancers learn only by their next probe that this gateway is leaving. A second signal ends the wait."""
    if delay_seconds:
        stop.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_seconds):
                await stop.wait()


def _keep_for_good() -> None:
    """What exists by now is here to stay: going through all of it for garbage holds every request up for 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _reload_on_signal(gateway: RunningGateway) -> None:
    """SIGHUP loads the configuration file anew."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(gateway.reload())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
