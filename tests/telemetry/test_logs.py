"""What of other libraries' lines reaches the log."""

from __future__ import annotations

import subprocess
import sys

_WARNING_OF_AN_OUTAGE = """
import asyncpg.pool
from proxy.infrastructure.telemetry.logs import configure_logging
configure_logging("INFO", "json")
try:
    raise ConnectionRefusedError
except OSError:
    asyncpg.pool.logger.warning("Failed to restore the pool connection floor; retrying", exc_info=True)
asyncpg.pool.logger.error("something else")
"""


def test_the_pool_does_not_tell_of_an_outage_again_and_again() -> None:
    """Ours tell of it once. The pool's would come from each process every few seconds, with a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _WARNING_OF_AN_OUTAGE], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = done.stderr.splitlines()
    assert "something else" in line
