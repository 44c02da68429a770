"""The background store alone: its bounds, its counting, and how it gets along with a database that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from proxy.application.payloads import NoPayloads, PayloadMode
from proxy.domain.request_log import RequestStatus
from proxy.infrastructure.payloads.store import BOUNDS, BackgroundPayloads, storing
from tests.payloads.conftest import Writer, capture, row
from tests.payloads.redactions import fail, hide_hello, wrong_type


@asynccontextmanager
async def running(
    writer: Writer, mode: PayloadMode = PayloadMode.ALL, flush_seconds: float = 10, **options: Any
) -> AsyncIterator[BackgroundPayloads]:
    redaction = options.pop("redaction", None)
    bounds = replace(BOUNDS, gather_seconds=0, first_pause_seconds=0, **options)
    store = BackgroundPayloads(writer, mode, 100, redaction, bounds)
    async with storing(store, flush_seconds):
        yield store


async def test_what_was_offered_is_stored_by_the_end(writer: Writer) -> None:
    async with running(writer) as store:
        for number in range(120):
            store.offer(row(str(number)), capture())
    assert writer.names() == [str(number) for number in range(120)]
    assert store.state() == {
        "mode": "all",
        "waiting": 0,
        "waiting_bytes": 0,
        "stored": 120,
        "dropped": 0,
        "redaction_failures": 0,
        "refused": 0,
        "last_error": None,
    }


async def test_only_requests_without_success_are_stored_when_errors_are_asked_for(writer: Writer) -> None:
    async with running(writer, PayloadMode.ERRORS) as store:
        for status in RequestStatus:
            store.offer(row(status.value, status), capture())
    assert set(writer.names()) == {status.value for status in RequestStatus} - {"success", "replayed"}


async def test_a_full_queue_drops_and_counts(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    """One batch is in hand while the database hangs; its payloads count as waiting."""
    writer.is_open.clear()
    async with running(writer, queue_items=3) as store:
        store.offer(row("in hand"), capture())
        await writer.has_begun.wait()
        for number in range(10):
            store.offer(row(str(number)), capture())
        assert store.state()["waiting"] == 3
        assert store.state()["dropped"] == 8
        writer.is_open.set()
    assert writer.names() == ["in hand", "0", "1"]
    assert [record.message for record in caplog.records].count("payloads are dropped: too many wait") == 1


async def test_the_queue_is_bounded_in_bytes_too(writer: Writer) -> None:
    writer.is_open.clear()
    async with running(writer, queue_bytes=1_000) as store:
        store.offer(row("larger than all"), capture(b"x" * 5_000))
        store.offer(row("no room"), capture(b"x"))
        assert store.state()["dropped"] == 1
        writer.is_open.set()
        while store.state()["waiting"]:
            await asyncio.sleep(0)
        assert store.state()["waiting_bytes"] == 0
        store.offer(row("first"), capture(b"x" * 500))
        store.offer(row("second"), capture(b"x" * 400))
        store.offer(row("third"), capture(b"x" * 400))
    assert writer.names() == ["larger than all", "first", "second"]


async def test_an_absent_database_is_tried_again_until_it_takes_them(writer: Writer) -> None:
    writer.failures = 5
    async with running(writer) as store:
        store.offer(row("a"), capture())
        store.offer(row("b"), capture())
    assert writer.names() == ["a", "b"]
    assert store.state()["last_error"] is None


async def test_stopping_does_not_wait_for_a_database_that_does_not_come_back(writer: Writer) -> None:
    writer.is_open.clear()
    async with running(writer, flush_seconds=0.05) as store:
        store.offer(row("in hand"), capture())
        await writer.has_begun.wait()
        store.offer(row("waiting"), capture())
    assert writer.names() == []
    assert store.state()["dropped"] == 2
    assert store.state()["waiting"] == 0


async def test_a_refused_row_does_not_take_others_with_it(writer: Writer) -> None:
    writer.disliked = "b"
    async with running(writer) as store:
        for name in "abc":
            store.offer(row(name), capture())
    assert writer.names() == ["a", "c"]
    assert store.state()["refused"] == 1


async def test_a_database_that_refuses_a_row_is_back(writer: Writer) -> None:
    writer.failures, writer.disliked = 2, "a"
    async with running(writer) as store:
        store.offer(row("a"), capture())
    assert (store.state()["refused"], store.state()["last_error"]) == (1, None)


@pytest.mark.parametrize("hook", [fail, wrong_type])
async def test_what_cannot_be_redacted_is_not_stored_and_counted(
    writer: Writer, hook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(writer, redaction=hook) as store:
        store.offer(row(), capture(b"a secret"))
    assert writer.written == []
    assert store.state()["redaction_failures"] == 1
    assert "secret" not in caplog.text + str([vars(record) for record in caplog.records])


async def test_one_failed_redaction_leaves_the_batch_alone(writer: Writer) -> None:
    def picky(body: bytes) -> bytes:
        if body == b"bad":
            raise KeyError(body)
        return hide_hello(body)

    async with running(writer, redaction=picky) as store:
        store.offer(row("good"), capture(b"Hello"))
        store.offer(row("bad request"), capture(b"bad"))
        store.offer(row("bad answer"), capture(b"Hello", b"bad"))
        store.offer(row("good too"), capture(b"Hello"))
    assert writer.names() == ["good", "good too"]
    assert store.state()["redaction_failures"] == 2


async def test_a_defect_of_the_writer_does_not_end_the_task(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Writer):
        async def write(self, rows: Any) -> None:
            if not self.failures:
                self.failures = 1
                raise RuntimeError("defect")
            await super().write(rows) if self.is_open.is_set() else None

    broken = Broken()
    async with running(broken) as store:
        store.offer(row("lost"), capture())
        while not store.state()["dropped"]:
            await asyncio.sleep(0)
        broken.failures, broken.disliked = 0, ""
        store.offer(row("lost again"), capture())
        while store.state()["dropped"] < 2:
            await asyncio.sleep(0)
    assert "payloads not stored" in caplog.text


def test_the_null_store_is_off() -> None:
    store = NoPayloads()
    assert not store.is_on
    store.offer(row(), capture())
    assert store.state() == {"mode": "off"}
