"""A gateway whose stderr nobody reads, or that has none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.process.conftest import clean_environment


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "0<&- 1>&- 2>&-"])
def test_it_starts_serves_and_ends_all_the_same(tmp_path: Path, redirection: str, workers: str) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m proxy serve {redirection}', sys.executable],
        cwd=tmp_path,
        env=clean_environment(
            LLMGATEWAY_PORT=str(port), LLMGATEWAY_DATA_DIR=str(tmp_path / "data"), LLMGATEWAY_WORKERS=workers
        ),
    )
    try:
        while process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10) as answer:
                    assert answer.status == 200
                break
            except OSError:
                time.sleep(0.1)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
