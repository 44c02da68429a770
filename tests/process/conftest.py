"""The gateway as its users run it: a process of its own, with the built-in demo upstream."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_URL = re.compile(r"URL\s+(http://\S+)/v1")


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without any setting of the gateway."""
    ours = ("LLMGATEWAY_", "OPENROUTER_", "DATABASE_URL", "RETRY_", "CIRCUIT_", "LEDGER_", "PRICES_", "RECONCILE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Serving:
    """A `llmgateway serve` that is ready."""

    process: subprocess.Popen[str]
    url: str
    environment: Mapping[str, str]
    output: list[str] = field(default_factory=list)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `llmgateway` command with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "proxy", *arguments],
            env={**self.environment, "LLMGATEWAY_PORT": self.url.rpartition(":")[2]},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@contextmanager
def serving(directory: Path, *command: str, **settings: str) -> Iterator[Serving]:
    """A gateway on a free port, its data in `directory`; killed at the end if it still runs."""
    environment = clean_environment(LLMGATEWAY_PORT="0", LLMGATEWAY_DATA_DIR=str(directory / "data"), **settings)
    process = subprocess.Popen(
        command or [sys.executable, "-m", "proxy", "serve"],
        env=environment,
        cwd=directory,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    output: list[str] = []
    reader: threading.Thread | None = None
    try:
        assert process.stderr is not None
        for line in process.stderr:
            output.append(line)
            if found := _URL.search(line):
                reader = threading.Thread(target=output.extend, args=(process.stderr,), daemon=True)
                reader.start()
                yield Serving(process, found.group(1), environment, output)
                break
        else:
            pytest.fail("the gateway did not start:\n" + "".join(output))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if reader is not None:
            reader.join(5)
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One gateway for a module's tests."""
    with serving(tmp_path_factory.mktemp("demo")) as gateway:
        yield gateway
