"""Forcing the spool to the disk: a disk that fails is told of and tried again, and nobody waits for it in vain."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from proxy.domain.errors import LedgerFull
from proxy.domain.request_log import RequestStatus
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.ledger import Fsync, SpoolLedger, spool_ledger
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.segment import Segment
from proxy.infrastructure.ledger.spool import Spool
from tests.conftest import StartGateway
from tests.harness import COMPLETION, HELLO, Upstream, chunk, ending, says, streams
from tests.ledger.conftest import Writer, row
from tests.ledger.test_ledger import MEBIBYTE, book
from tests.telemetry.scraping import scrape

TOLD = "spool does not reach the disk"
SEGMENT_BYTES = 64 * 1024


@dataclass
class Disk:
    """A Sync that can fail, and that can be held up."""

    fails: bool = False
    syncs: int = 0
    is_asked: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_go_on.set()

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        self.is_asked.set()
        self.may_go_on.wait()
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(descriptor)


async def test_always_refuses_while_the_disk_fails_and_recovers(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(fails=True)
    always = spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, fsync=Fsync.ALWAYS, sync=disk)
    async with asyncio.timeout(10), always as ledger:
        for _ in range(2):
            book(ledger, row())
            with pytest.raises(LedgerFull, match="Input/output error") as refused:
                await ledger.durable()
            assert refused.value.retry_after_seconds > 0
        assert ledger.state()["sync_error"] == "Input/output error"
        assert "does not reach the disk" in (ledger.refusal() or "")
        disk.fails = False
        book(ledger, row())
        await ledger.durable()
        assert (ledger.refusal(), ledger.sync_trouble(), ledger.state()["sync_error"]) == (None, None, None)
    assert [record.message for record in caplog.records].count(TOLD) == 1
    assert len(writer.booked) == 3


async def test_who_looks_whether_requests_are_refused_has_the_disk_tried_again(writer: Writer, tmp_path: Path) -> None:
    """A balancer sends none to a gateway that is not ready."""
    disk = Disk(fails=True)
    always = spool_ledger(tmp_path, writer, max_bytes=64 * MEBIBYTE, fsync=Fsync.ALWAYS, sync=disk)
    async with asyncio.timeout(10), always as ledger:
        book(ledger, row())
        with pytest.raises(LedgerFull):
            await ledger.durable()
        disk.fails = False
        while ledger.refusal() is not None:
            await asyncio.sleep(0.01)


async def test_a_failing_disk_is_tried_again_each_second(writer: Writer, tmp_path: Path) -> None:
    disk = Disk(fails=True)
    writer.is_away = True  # else the spool would soon hold nothing that the disk must have
    each_second = spool_ledger(
        tmp_path, writer, max_bytes=64 * MEBIBYTE, fsync=Fsync.INTERVAL, flush_timeout_seconds=0.05, sync=disk
    )
    async with asyncio.timeout(20), each_second as ledger:
        book(ledger, row())
        while ledger.sync_trouble() is None:
            await asyncio.sleep(0.01)
        await ledger.durable()
        assert ledger.refusal() is None  # rows are booked as ever: only a power cut would lose some
        disk.fails = False
        while ledger.sync_trouble() is not None:
            await asyncio.sleep(0.01)
        assert disk.syncs >= 2


async def test_segments_that_are_booked_while_others_are_synced_are_passed_over(
    writer: Writer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    disk.may_go_on.clear()
    spool = Spool(tmp_path, max_bytes=64 * MEBIBYTE, segment_bytes=SEGMENT_BYTES, sync=disk)
    quarantine = Quarantine(tmp_path)
    ledger = SpoolLedger(spool, Drain(writer, quarantine), quarantine, Fsync.ALWAYS)
    while len(spool.unsynced()) < 4:
        spool.reserve()
        spool.note_outcome(uuid4(), b"O" + bytes(9_999))
    syncing = asyncio.create_task(ledger.sync())
    await asyncio.to_thread(disk.is_asked.wait)
    while spool.waiting_rows():
        *_, reading = spool.read_on(1000)
        spool.booked(reading)
    assert len(spool.unsynced()) == 1
    disk.may_go_on.set()
    await syncing
    assert (spool.unsynced(), ledger.sync_trouble(), disk.syncs) == ([], None, 2)
    assert TOLD not in caplog.text
    spool.close()


def test_what_the_disk_did_not_take_is_written_again_before_it_is_asked_again(tmp_path: Path) -> None:
    """Linux tells of pages that could not be written once, and then takes them for written."""
    disk, path = Disk(fails=True), tmp_path / "segment"
    segment = Segment(path, SEGMENT_BYTES, disk)
    segment.append(b"one")
    with pytest.raises(OSError, match="Input/output"):
        segment.sync()
    assert segment.needs_sync
    written = segment.read(0, SEGMENT_BYTES)
    os.utime(path, ns=(0, 0))
    disk.fails = False
    segment.sync()
    assert path.stat().st_mtime_ns > 0
    assert not segment.needs_sync
    assert segment.read(0, SEGMENT_BYTES) == written
    segment.close(remove=True)


async def test_health_tells_of_a_disk_that_fails(start_gateway: StartGateway, upstream: Upstream) -> None:
    disk = Disk(fails=True)
    gateway = await start_gateway(sync=disk, ledger_fsync="always")
    upstream.answer(says())
    status, headers, answer = await gateway.chat()
    assert (status, answer["error"]["code"], upstream.calls) == (503, "ledger_full", 0)
    assert int(headers["retry-after"]) > 0
    _, report = await gateway.get("health")
    assert (report["status"], report["ledger"]["sync_error"]) == ("unavailable", "Input/output error")
    assert "does not reach the disk" in report["problems"][0]
    assert (await gateway.get("health/ready"))[0] == 503
    assert (await scrape(gateway)).value("llmgateway_ledger_can_sync") == 0
    disk.fails = False
    assert (await gateway.chat())[0] == 200
    _, report = await gateway.get("health")
    assert (report["status"], report["ledger"]["sync_error"]) == ("ok", None)
    assert (await scrape(gateway)).value("llmgateway_ledger_can_sync") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "once"}])
async def test_a_paid_answer_is_given_out_when_the_disk_fails_after_it(
    start_gateway: StartGateway, upstream: Upstream, headers: dict[str, str], *, stream: bool
) -> None:
    disk = Disk()
    gateway = await start_gateway(sync=disk, ledger_fsync="always")
    answering = streams(chunk("Hi"), *ending()) if stream else says()

    async def answered_by_who_breaks_the_disk(request: web.Request) -> web.StreamResponse:
        disk.fails = True
        return await answering(request)

    upstream.answer(answered_by_who_breaks_the_disk)
    status, _, answer = await gateway.raw_chat({**HELLO, "stream": stream}, **headers)
    assert status == 200
    assert b"[DONE]" in answer if stream else json.loads(answer) == COMPLETION
    assert (await gateway.row()).status is RequestStatus.SUCCESS


async def test_health_tells_of_rows_that_a_power_cut_would_lose(
    start_gateway: StartGateway, upstream: Upstream
) -> None:
    """They are booked as ever, so nobody is refused."""
    disk = Disk(fails=True)
    gateway = await start_gateway(sync=disk, ledger_fsync="interval")
    upstream.answer(says())
    async with asyncio.timeout(20):
        while (await gateway.get("health"))[1]["status"] == "ok":
            assert (await gateway.chat())[0] == 200
    _, report = await gateway.get("health")
    assert report["status"] == "degraded"
    assert any("does not reach the disk" in problem for problem in report["problems"])
