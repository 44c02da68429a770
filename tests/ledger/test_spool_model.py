"""A spool against its model: random requests, a crash at any byte, and what the next process makes of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.domain.request_log import RequestLog, RequestStatus
from proxy.infrastructure.ledger.adoption import adopt_dead_spools
from proxy.infrastructure.ledger.drain import Drain
from proxy.infrastructure.ledger.quarantine import Quarantine
from proxy.infrastructure.ledger.records import generation_payload, intent_payload, outcome_payload
from proxy.infrastructure.ledger.spool import Reading, Spool
from proxy.infrastructure.persistence.rows import ledger_row
from tests.ledger.conftest import Writer, intent_of, row

SEGMENT_BYTES = 64 * 1024
# What happens next: a request begins, one that is under way gets a generation id or ends, one is refused at once, some
# rows are read to be booked, are booked, or are not because the database is away.
STEPS = st.lists(
    st.sampled_from(["begin", "generate", "end", "refuse", "read", "book", "fail"]), min_size=1, max_size=120
)


class Model:
    """Does the steps on a spool, and remembers after which byte of which segment each record was whole."""

    def __init__(self, root: Path) -> None:
        self.spool = Spool(root, max_bytes=2**24, segment_bytes=SEGMENT_BYTES)
        self.reading: Iterator[Reading] | None = None
        self.read: Reading | None = None
        self.writer = Writer()
        self.under_way: list[RequestLog] = []
        self.records: list[tuple[str, RequestLog, Path, int]] = []

    async def do(self, step: str) -> None:
        if step == "begin":
            one = row(f"request-{len(self.records)}")
            self.spool.reserve()
            self.spool.note_intent(one.id, intent_payload(intent_of(one)))
            self.under_way.append(one)
            self._remember("intent", one)
        elif step == "generate" and self.under_way:
            one = self.under_way[-1]
            self.spool.note_generation(one.id, generation_payload(one.id, f"gen-{one.request_id}"))
            self._remember("generation", one)
        elif step == "end" and self.under_way:
            self._settle(self.under_way.pop(0))
        elif step == "refuse":
            self.spool.reserve()
            self._settle(row(f"refused-{len(self.records)}"))
        elif step == "read":
            self.reading = self.reading or self.spool.read_on(7)
            self.read = next(self.reading, self.read)  # what follows is read later, after whatever comes between
        elif step == "fail":
            self.reading = None
        elif step == "book":
            *_, self.read = [self.read, *(self.reading or self.spool.read_on(7))]
            assert self.read is not None
            await Drain(self.writer, Quarantine(self.spool.directory.parent)).book_payloads(self.read.outcomes)
            self.spool.booked(self.read)
            self.reading = None

    def _settle(self, one: RequestLog) -> None:
        self.spool.note_outcome(one.id, outcome_payload(ledger_row(one)))
        self._remember("outcome", one)

    def _remember(self, kind: str, one: RequestLog) -> None:
        segment = self.spool._current
        assert segment is not None
        self.records.append((kind, one, segment.path, segment.written_bytes))

    def crash(self, lost_bytes: int) -> dict[str, tuple[str, str | None]]:
        """The process dies, and the last bytes with it; what must be booked in the end: status and generation id."""
        segment = self.spool._current
        kept = 0
        if segment is not None:
            kept = max(0, segment.written_bytes - lost_bytes)
            with segment.path.open("r+b") as file:
                file.seek(kept)
                file.write(bytes(segment.written_bytes - kept))
        self.spool._lock.close()
        success = RequestStatus.SUCCESS, None
        expected: dict[str, tuple[str, str | None]] = dict.fromkeys(self.writer.names(), success)
        for kind, one, path, end in self.records:
            if segment is None or path != segment.path or end <= kept:
                if kind == "outcome":
                    expected[one.request_id] = success
                elif expected.get(one.request_id) != success:
                    generation = f"gen-{one.request_id}" if kind == "generation" else None
                    expected[one.request_id] = (RequestStatus.INTERRUPTED, generation)
        return expected


@given(STEPS, st.integers(0, 3000))
@settings(max_examples=150, deadline=None)
def test_after_a_crash_at_any_byte_all_that_was_whole_is_booked_once(steps: list[str], lost_bytes: int) -> None:
    async def live_and_die() -> None:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            model = Model(root)
            for step in steps:
                await model.do(step)
            expected = model.crash(lost_bytes)
            quarantine = Quarantine(root)
            await adopt_dead_spools(root, root / "another", Drain(model.writer, quarantine), quarantine)
            booked = {one.request_id: (one.status, one.generation_id) for one in model.writer.booked.values()}
            assert booked == expected
            assert list(root.glob("*/lock")) == []

    asyncio.run(live_and_die())


@given(STEPS)
@settings(max_examples=50, deadline=None)
def test_a_spool_that_is_booked_to_the_end_leaves_nothing(steps: list[str]) -> None:
    async def live_and_stop() -> None:
        with tempfile.TemporaryDirectory() as directory:
            model = Model(Path(directory))
            for step in [*steps, *["end"] * len(steps), *["book"] * len(steps)]:
                await model.do(step)
            assert model.spool.waiting_rows() == 0
            ended = [one.request_id for kind, one, _path, _end in model.records if kind == "outcome"]
            assert model.writer.names() == ended
            in_use = (model.spool._current, model.spool._reading)
            oldest = next(iter(model.spool._segments), None)  # after the current one is room for many at once
            assert oldest is None or oldest in in_use
            model.spool.close()
            assert list(Path(directory).glob("*/*")) == []

    asyncio.run(live_and_stop())
