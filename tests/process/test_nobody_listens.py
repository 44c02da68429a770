"""A gateway whose stderr nobody reads, or that has none."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process.conftest import clean_environment, free_port

_PAGE_BYTES = 4096  # in which a pipe is emptied
_MORE_LINES_THAN_A_PIPE_HOLDS = 600


def environment(directory: Path, port: int, workers: str) -> dict[str, str]:
    return clean_environment(
        LLMGATEWAY_PORT=str(port), LLMGATEWAY_DATA_DIR=str(directory / "data"), LLMGATEWAY_WORKERS=workers
    )


def ask(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=10) as answer:
        assert answer.status == 200


def until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(300):
        assert process.poll() is None
        with suppress(OSError):
            return ask(port)
        time.sleep(0.1)
    raise AssertionError("it does not answer")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "0<&- 1>&- 2>&-"])
def test_it_starts_serves_and_ends_all_the_same(tmp_path: Path, redirection: str, workers: str) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" -m proxy serve {redirection}', sys.executable],
        cwd=tmp_path,
        env=environment(tmp_path, port, workers),
    )
    try:
        until_it_answers(process, port)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_does_not_wait_for_who_reads_its_log(tmp_path: Path, workers: str) -> None:
    port = free_port()
    command = [sys.executable, "-m", "proxy", "serve"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path, port, workers), stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stderr is not None
    try:
        until_it_answers(process, port)
        for _ in range(_MORE_LINES_THAN_A_PIPE_HOLDS):
            ask(port)
        for _ in range(8):
            process.stderr.read(_PAGE_BYTES)
        for _ in range(20):
            ask(port)  # of every worker's lines some were lost
        process.terminate()
        _, rest = process.communicate(timeout=30)
        assert process.returncode == 0
        assert b"log lines were lost, stderr was not read" in rest
    finally:
        process.kill()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_starts_where_an_earlier_one_has_filled_the_pipe(tmp_path: Path, workers: str) -> None:
    """As one does that is to take over while the log's collector stands still."""
    port = free_port()
    reader, writer = os.pipe()
    os.write(writer, b"x" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
    command = [sys.executable, "-m", "proxy", "serve"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path, port, workers), stderr=writer)
    try:
        until_it_answers(process, port)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)
