"""Where upstream connections come from, and where they wait for their next request."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from typing import Any

from aiohttp import TCPConnector
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection

from proxy.application.outbox import Outbox
from proxy.infrastructure.connections import UpstreamConnection

_KEEP_SECONDS = 15.0  # unused; servers keep them for longer, as a rule


class KeptConnections:
    """Connections to one address that wait for their next request. The last one used is used first.

    The connector has them for taken; it closes them when it is closed itself.
    """

    def __init__(self, connector: DirectConnector, loop: asyncio.AbstractEventLoop, keep_seconds: float) -> None:
        self._connector = connector
        self._loop = loop
        self._keep_seconds = keep_seconds
        self.waiting: deque[tuple[Connection, UpstreamConnection, float]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    def take(self) -> tuple[Connection, UpstreamConnection] | None:
        """One that is connected, if there is any."""
        while self.waiting:
            connection, protocol, since = self.waiting.pop()
            transport = protocol.transport
            if transport is not None and not transport.is_closing() and self._loop.time() - since < self._keep_seconds:
                return connection, protocol
            connection.close()
        return None

    def give(self, connection: Connection, protocol: UpstreamConnection) -> None:
        """For the next request, unless nothing more can come of it."""
        if protocol.should_close or self._connector.closed:
            connection.close()
            return
        self.waiting.append((connection, protocol, self._loop.time()))
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._keep_seconds, self._drop_old)

    def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self.waiting:
            self.waiting.pop()[0].close()

    def _drop_old(self) -> None:
        """Of those that were given first: also what has been closed meanwhile goes."""
        self._sweep = None
        now = self._loop.time()
        while self.waiting and now - self.waiting[0][2] >= self._keep_seconds:
            self.waiting.popleft()[0].close()
        if self.waiting:
            oldest = self.waiting[0][2]
            self._sweep = self._loop.call_later(oldest + self._keep_seconds - now, self._drop_old)


class DirectConnector(TCPConnector):
    """A connector whose connections `poster` may use directly. It sets no limit to their number."""

    def __init__(self, *, keep_seconds: float = _KEEP_SECONDS, **options: Any) -> None:
        super().__init__(limit=0, **options)
        self._keep_seconds = keep_seconds
        self._factory = functools.partial(UpstreamConnection, self._loop, Outbox(self._loop))  # type: ignore[assignment]
        self._kept: dict[ConnectionKey, KeptConnections] = {}

    def kept(self, key: ConnectionKey) -> KeptConnections:
        """Those of an address: all who post there share them."""
        if key not in self._kept:
            self._kept[key] = KeptConnections(self, self._loop, self._keep_seconds)
        return self._kept[key]

    @property
    def in_use(self) -> int:
        """How many connections somebody has, and has not given back."""
        return len(self._acquired) - sum(len(kept.waiting) for kept in self._kept.values())

    async def close(self, *, abort_ssl: bool = False) -> None:
        for kept in self._kept.values():
            kept.close()
        await super().close(abort_ssl=abort_ssl)
