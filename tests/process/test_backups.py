"""The backup of docs/operations.md, made while the gateway serves, and restored as it is said there."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import httpx

from tests.process.conftest import Serving, serving
from tests.process.test_team_day import with_our_commands

_DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
_BLOCK = re.compile(r"<!-- a backup[^\n]*-->\n```sh\n(.*?)```", re.DOTALL)
_HELLO = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}


def _ask(gateway: Serving, count: int) -> None:
    for _ in range(count):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=_HELLO, timeout=30).raise_for_status()


def _booked(gateway: Serving, count: int) -> int:
    """How many rows there are, once it is as many, or after a while."""
    rows, deadline = 0, time.monotonic() + 20
    while rows != count and time.monotonic() < deadline:
        rows = json.loads(gateway.command("logs", "--json").stdout)["totals"]["requests"]
    return rows


def test_what_was_booked_before_the_backup_is_there_when_it_is_restored(tmp_path: Path) -> None:
    (command,) = _BLOCK.findall(_DOCUMENT.read_text(encoding="utf-8"))
    data = tmp_path / "data"
    with serving(tmp_path) as gateway:
        _ask(gateway, 3)
        assert _booked(gateway, 3) == 3
        environment = with_our_commands(tmp_path, gateway.environment)
        subprocess.run(
            ["bash", "-c", command.replace(".llmgateway/", "data/")], cwd=tmp_path, env=environment, check=True
        )
        _ask(gateway, 2)
        assert gateway.stop() == 0
    backup = tmp_path / "backup.db"
    assert backup.stat().st_mode & 0o077 == 0
    for name in ("llmgateway.db", "llmgateway.db-wal", "llmgateway.db-shm"):
        (data / name).unlink(missing_ok=True)
    backup.rename(data / "llmgateway.db")
    with serving(tmp_path) as gateway:
        _ask(gateway, 1)
        assert _booked(gateway, 4) == 4
