"""How much of a limit is this process's, where there is no Valkey: processes that share a data directory divide it.

Each of them holds the lock of a spool there for as long as it lives, so locks that cannot be taken tell how many live.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one of `processes` processes. No part is 0: who always came to that process would never get in."""

    processes: int = 1
    rank: int = 0

    def of(self, limit: int) -> int:
        if self.processes == 1:
            return limit
        whole, rest = divmod(limit, self.processes)
        return max(1, whole + (self.rank < rest))


def share_of(spools: Path, own: str) -> Share:
    """By the locks under `spools`; `own` is the name of this process's directory there."""
    living = sorted(lock.parent.name for lock in spools.glob("[!.]*/lock") if lock.parent.name == own or _is_held(lock))
    return Share(max(1, len(living)), living.index(own) if own in living else 0)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile
        return False
    return False
