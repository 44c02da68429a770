"""What of other libraries' lines reaches the log, and that ours about a request name it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from yarl import URL

from benchmarks.load import model_of, write_config
from tests.harness import COMPLETION, HELLO, FakeTime, Upstream, fails, says
from tests.telemetry.conftest import Start

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


_LONG_LINES_FOR_NOBODY = """
import json, logging, os
from proxy.infrastructure.telemetry.logs import configure_logging
reader, writer = os.pipe()
os.dup2(writer, 2)
configure_logging("INFO", "json")

def log():
    for bytes in (100, 3000, 5000, 70000, 10000, 4000):
        logging.error("a line", extra={"long": ["x" * bytes]})

def read(bytes):
    os.set_blocking(reader, False)
    return os.read(reader, bytes)

for _ in range(20):
    log()
seen = read(4096)
log()
seen += read(4096) + read(4096) + read(65536)
logging.error("a line")
print((seen + read(65536)).decode())
"""


def test_a_line_longer_than_what_is_free_of_a_pipe_is_lost_and_told_of() -> None:
    """Room for a page is all that the system tells of; a traceback may be longer."""
    done = subprocess.run(
        [sys.executable, "-c", _LONG_LINES_FOR_NOBODY], capture_output=True, text=True, timeout=20, check=True
    )
    whole = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{") and line.endswith("}")]
    lost = sum(line["lines"] for line in whole if "lost" in line["event"])
    assert lost + sum(line["event"] == "a line" for line in whole) == 21 * 6 + 1
    assert whole[-1] == {"event": "a line", "level": "error", "logger": "root", "timestamp": whole[-1]["timestamp"]}


_TWO_WORKERS_FOR_NOBODY = """
import logging, os
from proxy.infrastructure.telemetry.logs import configure_logging
for _ in range(100):
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    configure_logging("INFO", "json")
    workers = []
    for _ in range(2):
        workers.append(os.fork())
        if not workers[-1]:
            os.close(reader)
            for _ in range(200):
                logging.error("a line", extra={"long": ["x" * 2900]})
            os._exit(0)
    for worker in workers:
        os.waitpid(worker, 0)
    os.close(reader), os.close(writer)
"""


def test_workers_that_write_at_the_same_time_do_not_wait_either() -> None:
    """The last room of the pipe may be taken by another after one of them has asked for it."""
    subprocess.run([sys.executable, "-c", _TWO_WORKERS_FOR_NOBODY], timeout=60, check=True)


def _of_requests(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    about_others = ("proxy.infrastructure.breaker", "proxy.bootstrap", "proxy.application.unpriced")
    return [record for record in caplog.records if not record.name.startswith((*about_others, "asyncio"))]


async def test_each_line_about_a_request_names_it_and_the_deployment(
    start: Start, write: Callable[..., None], upstream: Upstream, second: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many that run at once nobody could tell whose retry it is, and where."""
    write(models={"fast": model_of("one", "two", strategy="priority")})
    gateway = await start(FakeTime().timing())
    upstream.answer(fails(500))
    second.answer(fails(500), says({**COMPLETION, "usage": None}))
    caplog.clear()
    with caplog.at_level("INFO", "proxy"):
        _, headers, _ = await gateway.chat({**HELLO, "model": "fast"})
    lines = {record.getMessage(): vars(record) for record in _of_requests(caplog)}
    assert {line.get("request_id") for line in lines.values()} == {headers["x-request-id"]}
    assert lines.keys() >= {"attempt failed, trying the next", "retrying upstream call", "upstream answered"}
    assert "upstream reported no usage" in lines
    assert lines["retrying upstream call"]["deployment"] == "two/any"


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://{upstream}/v1", "[SSL: "),  # as for a certificate that has expired, or is of another host
        ("http://nobody.invalid/v1", "nobody.invalid"),
        ("http://127.0.0.1:9/v1", "Connect call failed"),
    ],
)
async def test_why_there_is_no_connection_is_in_the_log(
    start: Start, config: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture, url: str, detail: str
) -> None:
    """The client is told the kind of trouble; whoever has to mend it needs more, and finds it nowhere else."""
    base_url = url.format(upstream=URL(upstream.url).authority)
    write_config(config, {"one": base_url}, models={"fast": model_of("one")}, routing={"max_attempts": 1})
    gateway = await start()
    _, _, answer = await gateway.chat({**HELLO, "model": "fast"})
    for event in ("provider is not healthy", "upstream call failed"):
        (line,) = (vars(record) for record in caplog.records if record.getMessage() == event)
        assert detail in line["detail"], event
    assert detail not in str(answer)
