"""Writes that are held for the rest of a turn: nothing is lost, doubled or put in another order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import uvloop

from proxy.application.outbox import GatheringTransport, Outbox

LARGE = b"x" * 100_000


@dataclass
class Wire(asyncio.Transport):
    """A transport that notes each call of the system that it would make."""

    sent: list[bytes] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def write_eof(self) -> None:
        self.ended.append("eof")

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")

    def is_closing(self) -> bool:
        return bool({"closed", "aborted"} & set(self.ended))

    def get_write_buffer_size(self) -> int:
        return 7


def wires(count: int = 1) -> list[tuple[Wire, GatheringTransport]]:
    """That share an outbox."""
    outbox = Outbox(asyncio.get_running_loop())
    return [(wire, GatheringTransport(wire, outbox)) for wire in (Wire() for _ in range(count))]


async def test_what_is_written_in_a_turn_leaves_after_it_and_each_connections_in_one_piece() -> None:
    (one, first), (other, second) = wires(2)
    first.write(b"a")
    second.write(bytearray(b"b"))
    first.write(memoryview(b"c"))
    assert (one.sent, other.sent, first.get_write_buffer_size()) == ([], [], 9)
    await asyncio.sleep(0)
    assert (one.sent, other.sent, first.get_write_buffer_size()) == ([b"ac"], [b"b"], 7)


async def test_data_that_is_changed_after_it_was_written_leaves_as_it_was() -> None:
    ((wire, transport),) = wires()
    data = bytearray(b"before")
    transport.write(data)
    data[:] = b"after!"
    await asyncio.sleep(0)
    assert wire.sent == [b"before"]


async def test_large_data_does_not_wait_but_for_what_was_written_before_it() -> None:
    ((wire, transport),) = wires()
    transport.write(LARGE)
    transport.write(b"a")
    transport.write(LARGE)
    assert wire.sent == [LARGE, b"a", LARGE]
    transport.write(b"b")
    transport.writelines([b"c"])
    assert b"".join(wire.sent[3:]) == b"bc"


async def test_who_writes_without_a_pause_is_not_held_for_ever() -> None:
    """A transport that is given nothing cannot say that it is full."""
    ((wire, transport),) = wires()
    pieces = [bytes([number % 256]) * 1000 for number in range(1000)]
    for piece in pieces:
        transport.write(piece)
        assert transport.get_write_buffer_size() < 65_536 + 7
    assert sum(map(len, wire.sent)) > 900_000
    await asyncio.sleep(0)
    assert b"".join(wire.sent) == b"".join(pieces)


async def test_who_writes_alone_does_not_wait() -> None:
    ((wire, transport),) = wires()
    waited = []
    for _ in range(100):
        transport.write(b"a")
        waited.append(not wire.sent)
        await asyncio.sleep(0)
        assert wire.sent.pop() == b"a"
    assert sum(waited) == 12  # four, and then 32 that do not


async def test_closing_sends_what_is_held_and_aborting_forgets_it() -> None:
    for end, left in (("close", [b"a"]), ("write_eof", [b"a"]), ("abort", [])):
        ((wire, transport),) = wires()
        transport.write(b"a")
        getattr(transport, end)()
        assert (wire.sent, len(wire.ended)) == (left, 1)
        await asyncio.sleep(0)
        assert wire.sent == left


async def test_a_connection_that_is_lost_meanwhile_takes_nobody_elses_data_with_it() -> None:
    (one, first), (other, second) = wires(2)
    first.write(b"a")
    second.write(b"b")
    one.close()
    await asyncio.sleep(0)
    assert (one.sent, other.sent) == ([], [b"b"])


class Echo(asyncio.Protocol):
    """Sends back what comes, a byte at a time, and closes after a full stop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = GatheringTransport(transport, self._outbox)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        for byte in data:
            self._transport.write(bytes([byte]))
        if data.endswith(b"."):
            self._transport.close()


@asynccontextmanager
async def echoing() -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    outbox = Outbox(loop)
    server = await loop.create_server(lambda: Echo(outbox), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _talk() -> list[bytes]:
    async def client(port: int, number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in (b"%d " % number, LARGE, b"the end."):
            writer.write(part)
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        return answer

    async with echoing() as port, asyncio.timeout(20):
        return await asyncio.gather(*(client(port, number) for number in range(8)))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_over_real_connections_each_gets_its_own_whole_and_to_the_end(factory: object) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]
        answers = runner.run(_talk())
    assert answers == [b"%d " % number + LARGE + b"the end." for number in range(8)]
