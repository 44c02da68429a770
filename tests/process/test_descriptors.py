"""A gateway that may open few files."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.process.conftest import serving


def test_more_connections_than_descriptors_are_refused_and_when_they_are_gone_it_serves_on(tmp_path: Path) -> None:
    shell = ("bash", "-c", 'ulimit -Hn 280 -Sn 270 && exec "$0" -m proxy serve', sys.executable)
    with serving(tmp_path, *shell) as gateway:
        assert any("few open files" in line for line in gateway.output)
        address = (urlsplit(gateway.url).hostname or "", urlsplit(gateway.url).port or 0)
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(socket.create_connection(address))
            time.sleep(0.5)
            began = _cpu_seconds(gateway.process.pid)
            time.sleep(1.0)
            assert _cpu_seconds(gateway.process.pid) - began < 0.8  # it does not try again and again
            assert gateway.process.poll() is None
        deadline = time.monotonic() + 20
        while (status := _status(address)) != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == 200
        assert gateway.stop() == 0


def _status(address: tuple[str, int]) -> int | None:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
