"""Listening, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from contextlib import AsyncExitStack

from aiohttp import web

from proxy.bootstrap.gateway import RunningGateway, running_gateway
from proxy.settings import Settings

_BACKLOG = 1024


def listen(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises OSError when the address cannot be had."""
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
            await _site(gateway.admin, settings.llmgateway_admin_port, settings, stack)
        runner = await _site(gateway.app, settings.llmgateway_port, settings, stack)
        _keep_for_good()
        print(banner(gateway, runner.addresses[0], settings), file=sys.stderr, flush=True)  # noqa: T201
        _reload_on_signal(gateway)
        await stop.wait()
        gateway.stop_serving()


async def _site(app: web.Application, port: int, settings: Settings, stack: AsyncExitStack) -> web.AppRunner:
    """Serves the application until the stack ends."""
    runner = web.AppRunner(
        app,
        handler_cancellation=True,  # a client that hangs up must end its upstream call
        access_log=None,  # ours has the facts
        auto_decompress=False,  # compressed bodies are refused, not unpacked
        shutdown_timeout=settings.shutdown_grace_seconds / 2,  # aiohttp waits twice
    )
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, settings.llmgateway_host, port, backlog=_BACKLOG).start()
    return runner


def _keep_for_good() -> None:
    """What exists by now is here to stay: going through all of it for garbage holds every request up for 0.2 s."""
    gc.collect()
    gc.freeze()


def _reload_on_signal(gateway: RunningGateway) -> None:
    """SIGHUP loads the configuration file anew."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(gateway.reload())
        running.add(task)
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)


def _key_to_try(settings: Settings) -> tuple[str, str]:
    """What a call of a model needs for a key, and how to come by it."""
    if settings.llmgateway_master_key is None and settings.llmgateway_require_keys != "always":
        return "", ""
    if settings.llmgateway_master_key is not None and settings.llmgateway_master_key_calls_models:
        return " -H 'Authorization: Bearer '\"$LLMGATEWAY_MASTER_KEY\"", ""
    return " -H 'Authorization: Bearer '\"$KEY\"", "  llmgateway keys create --help   (a key that calls models)\n"


def banner(gateway: RunningGateway, address: tuple[str, int], settings: Settings) -> str:
    """What someone at a terminal wants to know first."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}"
    key, first = _key_to_try(settings)
    body = json.dumps({"model": gateway.example_model, "messages": [{"role": "user", "content": "Hello"}]})
    hint = "\n  (no OPENROUTER_API_KEY: answers are made up)" if gateway.uses_demo else ""
    return (
        f"\nLLM Gateway is ready\n"
        f"  URL       {url}/v1   (docs: {url}/docs, health: {url}/health)\n"
        f"  upstream  {gateway.upstream}{hint}\n"
        f"  database  {gateway.database}\n\n"
        f"Try it:\n{first}"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f"    -d '{body}'\n"
    )
