"""What one process at a time may do to a SQLite file."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO


@asynccontextmanager
async def file_locked(database: Path) -> AsyncIterator[None]:
    """Waits for the lock beside the database's file; it is free when this ends, or the process does."""
    with await asyncio.to_thread(_locked, Path(f"{database}.lock")):
        yield


def _locked(path: Path) -> TextIO:
    """The file, open and locked; closing it unlocks it."""
    lock = path.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock
