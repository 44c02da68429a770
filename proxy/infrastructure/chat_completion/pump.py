"""Moving a stream on in the very call in which its connection hands it over.

Reading with `await` wakes a task for each piece that comes: two turns of the event loop, and a timer that is set anew.
Here the connection's protocol calls, and what came is handed on before it returns; the one task that is responsible for
the stream sleeps until something is to be decided. That halves what a piece costs (benchmarks.compare, paced streams).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.infrastructure.posting import DirectReply


class Pump:
    """Hands an answer's pieces on, each with the chunk that it was, if it was one.

    `hand_on` says whether it takes more; what it raises ends the pumping.
    """

    def __init__(self, reply: DirectReply, hand_on: Callable[[bytes, bytes | None], bool]) -> None:
        self._reply = reply
        self._hand_on = hand_on
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_moving = False

    async def run(self) -> None:
        """Until `hand_on` has enough, or reading would end or fail: then reading goes on. Raises what it raises."""
        try:
            self._changed()
            if not self._ended.done():
                self._reply.watch(self._changed, self._take)
            await self._ended
        finally:
            self._reply.watch(None)

    def _take(self, piece: bytes, chunk: bytes | None) -> None:
        """The one way for nearly all pieces: as short as it can be."""
        try:
            goes_on = self._hand_on(piece, chunk)
        except Exception as error:  # noqa: BLE001  # it belongs to the task that waits, not to the connection
            self._end(error)
            return
        if not goes_on:
            self._end()

    def _changed(self) -> None:
        if self._is_moving or self._ended.done():  # reading may hand over more at once
            return
        self._is_moving = True
        try:
            if not self._move():
                self._end()
        except Exception as error:  # noqa: BLE001  # as above
            self._end(error)
        self._is_moving = False

    def _move(self) -> bool:
        content = self._reply.content
        while content.exception() is None:
            data = content.read_nowait()
            if not data:
                return not content.is_eof()
            if not self._hand_on(data, None):
                return False
        return False

    def _end(self, error: Exception | None = None) -> None:
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)
        self._reply.watch(None)  # what comes from here on is for reading
