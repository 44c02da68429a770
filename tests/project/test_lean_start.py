"""What a gateway does not load that nobody has asked it for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_BY_SETTING = ["cryptography", "jwt", "redis"]
_BY_MIGRATION = ["black"]


def test_libraries_are_loaded_when_a_setting_or_a_migration_asks_for_them(sqlite_url: str, tmp_path: Path) -> None:
    """Together they would take 24 of the 119 MB of an idle gateway. Workers share what is loaded before the fork."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("lean_start.py")), *_BY_SETTING, *_BY_MIGRATION, "asyncpg"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "DATABASE_URL": sqlite_url,
            "LLMGATEWAY_DATA_DIR": str(tmp_path),
            "LLMGATEWAY_PORT": "0",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"serving": ["asyncpg"], "before the fork": [*_BY_SETTING, "asyncpg"]}
