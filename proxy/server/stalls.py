"""Clients that do not read."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.server.protocol import ClientConnection, ClientServer


class WatchedConnection(ClientConnection):
    """One client's connection, cut off when the client takes nothing off it for as long as the time-out says.

    Only while there is more than the write buffer holds; it ends the request like any hang-up.
    """

    __slots__ = ("_stall", "_write_stall_seconds")

    def __init__(self, manager: ClientServer, **more: Any) -> None:
        super().__init__(manager, **more)
        self._write_stall_seconds = manager.timeouts.write_stall_seconds
        self._stall: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is written to."""
        super().pause_writing()
        self._watch(self._unsent_bytes())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()

    def _watch(self, unsent_bytes: int) -> None:
        self._stall = self._loop.call_later(self._write_stall_seconds, self._look_for_stall, unsent_bytes)

    def _stop_watching(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look_for_stall(self, unsent_bytes: int) -> None:
        now_unsent = self._unsent_bytes()
        if now_unsent < unsent_bytes:
            self._watch(now_unsent)
        elif self.transport is not None:
            self.transport.abort()

    def _unsent_bytes(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()
