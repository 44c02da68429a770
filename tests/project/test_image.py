"""What the Dockerfile takes, and what it leaves out: there is no Docker where the tests run."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LEFT_OUT = re.findall(r"pip uninstall --yes (.+?)(?: \\)?$", DOCKERFILE, re.MULTILINE)[0].split()
EXTRAS = ("anthropic", "google-genai", "opentelemetry-exporter-otlp-proto-http")


def versions(name: str) -> dict[str, set[str]]:
    """Of each distribution in a requirements file; some have several, for several versions of Python."""
    found: dict[str, set[str]] = {}
    for distribution, version in re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(distribution, set()).add(version)
    return found


def test_all_that_is_copied_is_let_through_to_the_build() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert set(copied) == let_through
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_image_has_all_extras_as_they_were_tested() -> None:
    image, tested = versions("requirements-image.txt"), versions("requirements-dev.txt")
    assert set(EXTRAS) <= image.keys()
    assert {name: tested.get(name) for name in image} == image
    assert "requirements-image.txt" in DOCKERFILE


def test_nothing_needs_what_the_image_leaves_out() -> None:
    modules = [
        module for module, distributions in packages_distributions().items() if set(distributions) & set(LEFT_OUT)
    ]
    assert len(modules) >= len(LEFT_OUT)
    script = Path(__file__).with_name("import_everything.py")
    run = subprocess.run(
        [sys.executable, script, *modules], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_package_that_is_needed_would_be_missed() -> None:
    script = Path(__file__).with_name("import_everything.py")
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, script, "numpy"], cwd=ROOT, capture_output=True, timeout=120, check=True)
