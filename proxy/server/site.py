"""How aiohttp listens on one port."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiohttp import web

from proxy.settings import Settings

_BACKLOG = 1024


async def serve_on(app: web.Application, port: int, settings: Settings, stack: AsyncExitStack) -> web.AppRunner:
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
