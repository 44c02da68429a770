"""Where rows go that the database will not take: readable, with the reason, and out of the others' way."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from proxy.infrastructure.persistence.rows import LedgerRow

_logger = logging.getLogger(__name__)
FILE_NAME = "quarantine.jsonl"


class Quarantine:
    """A file of JSON lines beside the spools; nothing reads it but people."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE_NAME
        self.set_aside_rows = 0

    def row(self, row: LedgerRow, problem: BaseException) -> None:
        """The reason is the kind of the problem: a driver's message may quote values."""
        self._write({"reason": type(problem).__name__, "row": msgspec.structs.asdict(row)})

    def unreadable(self, payload: bytes, problem: BaseException) -> None:
        self._write({"reason": str(problem), "payload_hex": payload.hex()})

    def damage(self, source: str, start: int, end: int, damaged: bytes) -> None:
        facts = {"reason": "damaged spool", "segment": source, "start": start, "end": end, "bytes_hex": damaged.hex()}
        self._write(facts)

    def _write(self, facts: dict[str, object]) -> None:
        self.set_aside_rows += 1
        entry = {"at": datetime.now(UTC).isoformat(), **facts}
        where = {"file": str(self._path), "reason": facts["reason"]}
        _logger.error("set aside in the ledger's quarantine", extra=where)
        try:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as problem:
            _logger.error("quarantine cannot be written", extra={"reason": problem.strerror, "entry": entry})
