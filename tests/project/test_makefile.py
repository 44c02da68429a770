"""How `make` runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.project.test_sources import ROOT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="there is no make")


def made(*arguments: str, before: Callable[[], None] = lambda: None) -> subprocess.CompletedProcess[str]:
    """As from a shell: these tests may be run by make, too."""
    assert MAKE is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        [MAKE, *arguments],
        cwd=ROOT,
        env=environment,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="all cores are ours there")
def test_tests_are_for_the_cores_that_we_may_use() -> None:
    """A container may have two of a hundred."""
    core = min(os.sched_getaffinity(0))
    ran = made("-n", "pytest", f"PYTHON={sys.executable}", before=lambda: os.sched_setaffinity(0, {core}))
    assert "pytest -n 2 " in ran.stdout


def test_help_needs_no_python() -> None:
    ran = made("help", "PYTHON=")
    assert (ran.stdout[:4], ran.stderr) == ("help", "")
