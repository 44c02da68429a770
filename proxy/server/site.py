"""How aiohttp listens on one port."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from proxy.bootstrap.gateway import RunningGateway
from proxy.server.framing import MAX_HEADERS, MAX_LINE_BYTES
from proxy.server.gate import Gate
from proxy.server.listening import BACKLOG
from proxy.server.protocol import Timeouts
from proxy.server.shedding import SheddingRunner
from proxy.settings import Settings

_LISTENERS = 16  # libuv takes one connection a turn off each; when turns are long, those that wait would not be served


async def serve_on(
    app: web.Application,
    sockets: Sequence[socket.socket],
    gateway: RunningGateway,
    settings: Settings,
    stack: AsyncExitStack,
) -> SheddingRunner:
    """Serves the application until the stack ends. The sockets stay open: they are the caller's."""
    runner = SheddingRunner(
        app,
        Gate(gateway.load, gateway.priority_of, gateway.has_priorities),
        timeouts_of(settings),
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
        handler_cancellation=True,  # a client that hangs up must end its upstream call
        access_log=None,  # ours has the facts
        auto_decompress=False,  # compressed bodies are refused, not unpacked
        shutdown_timeout=settings.shutdown_grace_seconds,
    )
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    for each in sockets:
        for _ in range(_LISTENERS):
            await web.SockSite(runner, socket.socket(fileno=os.dup(each.fileno())), backlog=BACKLOG).start()
    return runner


def timeouts_of(settings: Settings) -> Timeouts:
    """How long clients may take."""
    return Timeouts(
        head_seconds=settings.head_timeout_seconds,
        keepalive_seconds=settings.keepalive_timeout_seconds,
        body_seconds=settings.body_timeout_seconds,
        body_min_bytes_per_second=settings.body_min_bytes_per_second,
        write_stall_seconds=settings.write_stall_timeout_seconds,
    )


async def stop_accepting(runner: web.AppRunner) -> None:
    """Connections that are open go on being served."""
    for site in list(runner.sites):
        await site.stop()
