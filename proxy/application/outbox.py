"""What is written in one turn of the event loop, sent together when the turn is over.

A write is a call of the system that hands the data to whoever waits for it at the other end. On the same host that one
sleeps, and has to be woken: most of what a write costs. It goes back to sleep while the next request is worked on here,
and is woken again. Writes that follow each other find it awake; and what one connection is given in several pieces
leaves in one call. With 16 requests at a time the gateway needs a sixth less CPU for each.

Who writes alone gains nothing by waiting for the others, so a write goes out at once while that has been so lately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

_SINGLES: Final = 4  # turns with one write, after which …
_AT_ONCE: Final = 32  # … so many writes do not wait
_MOST_HELD_BYTES: Final = 65_536  # by one connection

_Data = bytes | bytearray | memoryview


class Outbox:
    """One for an event loop's connections of one kind."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[GatheringTransport] = []
        self._singles = 0
        self._at_once = 0

    def takes(self, writer: GatheringTransport) -> bool:
        """Whether the writer's data is to be held: then `send` of it is called at the end of this turn."""
        if self._at_once:
            self._at_once -= 1
            return False
        if not self._writers:
            self._loop.call_soon(self._send)
        self._writers.append(writer)
        return True

    def _send(self) -> None:
        writers, self._writers = self._writers, []
        if len(writers) > 1:
            self._singles = 0
        else:
            self._singles += 1
            if self._singles >= _SINGLES:
                self._singles, self._at_once = 0, _AT_ONCE
        for writer in writers:
            writer.send()


class GatheringTransport(asyncio.Transport):
    """A connection's transport whose writes are held for the rest of a turn, in their order.

    No more is held than is sent at a time by others: a handler that writes on and on without a pause is to learn from
    the transport that its client does not read. Closing sends what is held first; aborting forgets it.
    """

    __slots__ = ("_held", "_outbox", "_transport", "is_closing")
    is_closing: Callable[[], bool]  # the transport's own: a call less before each write

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._held = b""
        self.is_closing = transport.is_closing

    def write(self, data: _Data) -> None:
        held = self._held
        if len(held) + len(data) < _MOST_HELD_BYTES and (held or self._outbox.takes(self)):
            self._held = held + data if held else bytes(data)
            return
        self.send()
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[_Data]) -> None:
        self.send()
        self._transport.writelines(list_of_data)

    def write_at_once(self, data: _Data) -> None:
        """For whoever writes to many connections, one after the other: then there is nothing to wait for."""
        if self._held:
            self.send()
        if not self.is_closing():
            self._transport.write(data)

    def send(self) -> None:
        """Send what is held."""
        held = self._held
        if not held:
            return
        self._held = b""
        if not self.is_closing():
            self._transport.write(held)

    def write_eof(self) -> None:
        self.send()
        self._transport.write_eof()

    def close(self) -> None:
        self.send()
        self._transport.close()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + len(self._held)

    @property
    def _sendfile_compatible(self) -> Any:
        """Not unfinished: asyncio's `sendfile` asks for this name, and aiohttp, told so, writes the file itself. On
        uvloop, which has no `sendfile`, it does that anyway."""
        raise NotImplementedError

    # As they are.

    def can_write_eof(self) -> bool:
        return self._transport.can_write_eof()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)
