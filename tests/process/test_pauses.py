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
        told.write_text(f"{gc.get_freeze_count()} {gc.isenabled()} objects")
        time.sleep(0.05)

threading.Thread(target=tell, daemon=True).start()
"""


def test_the_garbage_collector_leaves_alone_what_was_there_at_the_start(tmp_path: Path) -> None:
    """Modules have over a hundred thousand objects; going through them took 0.2 s, in the middle of requests.

    While they are imported it does nothing; afterwards it goes on.
    """
    (tmp_path / "sitecustomize.py").write_text(_TELLING)
    path = os.pathsep.join([str(tmp_path), str(Path(proxy.__file__).parents[1])])
    with serving(tmp_path, PYTHONPATH=path):
        deadline = time.monotonic() + 10
        frozen, enabled = 0, ""
        while (frozen < 50_000 or enabled != "True") and time.monotonic() < deadline:
            time.sleep(0.1)
            text = (tmp_path / "frozen").read_text()
            if text.endswith("objects"):
                frozen, enabled = int(text.split()[0]), text.split()[1]
    assert frozen >= 50_000
    assert enabled == "True"
