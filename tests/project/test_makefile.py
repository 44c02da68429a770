"""How `make` runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.project.test_sources import ROOT


def made(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As from a shell: these tests may be run by make, too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (2, 3), (4, 6), (64, 16)])
def test_there_are_three_processes_for_two_cores_but_no_crowd(cores: int, processes: int) -> None:
    ran = made("-n", "pytest", f"PYTHON={sys.executable}", f"CORES={cores}")
    assert f"pytest -n {processes} " in ran.stdout


def test_help_needs_no_python() -> None:
    ran = made("help", "PYTHON=")
    assert (ran.stdout[:4], ran.stderr) == ("help", "")
