"""What would hold every request up at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import proxy
from tests.process.conftest import serving

_TELLING = """
import gc, pathlib, threading, time

def tell():
    told = pathlib.Path(__file__).with_name("frozen")
    while True:
        told.write_text(f"{gc.get_freeze_count()} objects")
        time.sleep(0.05)

threading.Thread(target=tell, daemon=True).start()
"""


def test_the_garbage_collector_leaves_alone_what_was_there_at_the_start(tmp_path: Path) -> None:
    """Modules have over a hundred thousand objects; going through them took 0.2 s, in the middle of requests."""
    (tmp_path / "sitecustomize.py").write_text(_TELLING)
    path = os.pathsep.join([str(tmp_path), str(Path(proxy.__file__).parents[1])])
    with serving(tmp_path, PYTHONPATH=path):
        deadline = time.monotonic() + 10
        frozen = 0
        while frozen < 50_000 and time.monotonic() < deadline:
            time.sleep(0.1)
            text = (tmp_path / "frozen").read_text()
            frozen = int(text.split()[0]) if text.endswith("objects") else 0
    assert frozen >= 50_000
