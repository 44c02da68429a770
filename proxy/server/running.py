"""Serving in one process, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from proxy.bootstrap.gateway import RunningGateway, import_for_workers, running_gateway
from proxy.bootstrap.siblings import prepare_for_workers
from proxy.server.banner import banner
from proxy.server.descriptors import fill_standard_streams, raise_limit
from proxy.server.listening import Handover, Listening, handover_path, listening
from proxy.server.memory import keep_for_good, keep_freed_memory
from proxy.server.saying import say
from proxy.server.site import serve_on, stop_accepting
from proxy.settings import Settings

OnReady = Callable[[RunningGateway], None]
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def listen(settings: Settings, *, take_over: bool = False) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises InvalidValue when the address cannot be had, or there is no gateway to take over from.
    """
    fill_standard_streams()
    raise_limit()
    sockets = listening(settings, take_over=take_over)
    workers = settings.llmgateway_workers
    address = sockets.sockets["api"][0].getsockname()

    def ready(gateway: RunningGateway) -> None:
        say(banner(gateway, address, settings, workers))

    if workers > 1:
        from proxy.server.workers import supervise  # noqa: PLC0415  # and gunicorn, which one process does not need

        import_for_workers(settings)
        prepare_for_workers(settings)
        supervise(
            settings,
            sockets,
            lambda on_ready, gives_way: run(serve(settings, sockets, on_ready, gives_way)),
            ready,
        )
        return

    def alone(gateway: RunningGateway) -> None:
        handover.append(Handover(handover_path(settings, sockets), sockets))
        handover[0].open()
        sockets.release_predecessor()
        ready(gateway)

    handover: list[Handover] = []
    try:
        run(serve(settings, sockets, alone))
    finally:
        for each in handover:
            each.close()


def run(serving: Coroutine[Any, Any, None]) -> None:
    """In the faster event loop, where there is one."""
    try:
        import uvloop  # noqa: PLC0415  # not on Windows
    except ImportError:
        asyncio.run(serving)
    else:
        uvloop.run(serving)


async def serve(
    settings: Settings, sockets: Listening, on_ready: OnReady, gives_way: Callable[[], bool] = lambda: False
) -> None:
    """On a signal: take no more connections, let running requests finish, book everything, return.

    `gives_way` says of a worker that has been told to end whether it is only this one, and others take its place.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in _STOPPING:
        loop.add_signal_handler(name, stop.set)
    async with running_gateway(settings) as gateway, AsyncExitStack() as stack:
        apps = {"admin": gateway.admin, "metrics": gateway.metrics, "api": gateway.app}
        runners = [
            await serve_on(app, sockets.sockets[name], gateway, settings, stack)
            for name, app in apps.items()
            if app is not None and name in sockets.sockets
        ]
        keep_freed_memory()
        keep_for_good()
        _reload_on_signal(gateway)
        on_ready(gateway)
        await stop.wait()
        gateway.stop_serving(gives_way)
        for runner in runners:
            runner.ask_to_leave()
        await _until_nobody_comes(stop, settings.shutdown_delay_seconds)
        for runner in runners:
            await stop_accepting(runner)
        sockets.close()
        await asyncio.gather(*(runner.last_call(settings.shutdown_grace_seconds) for runner in runners))


async def _until_nobody_comes(stop: asyncio.Event, delay_seconds: float) -> None:
    """Balancers learn only by their next probe that this gateway is leaving. A second signal ends the wait."""
    if delay_seconds:
        stop.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_seconds):
                await stop.wait()


def _reload_on_signal(gateway: RunningGateway) -> None:
    """SIGHUP loads the configuration file anew."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(gateway.reload())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
