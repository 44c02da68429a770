"""The list of benchmarks: made from what they say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.compare.targets import ROOT
from benchmarks.index import benchmarks, described


def test_a_docstring_says_what_is_measured_what_it_backs_and_how_it_is_shortened() -> None:
    one = described("it", "What it costs.\n\nMore.\n\nClaim: it costs\nlittle.\nShort: --rows 5\nShort: --kind other\n")
    assert (one.measures, one.claim) == ("What it costs.", "it costs little.")
    assert one.short_runs == (("--rows", "5"), ("--kind", "other"))


def test_one_without_claim_or_short_form_is_listed_all_the_same() -> None:
    one = described("it", "What it costs.")
    assert (one.claim, one.short_runs) == ("", ())


def test_only_commands_are_benchmarks(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text('"""Measures."""\n\nif __name__ == "__main__":\n    pass\n')
    (tmp_path / "part.py").write_text('"""A part."""\n')
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""Measures more."""\n')
    (tmp_path / "package" / "__main__.py").write_text("")
    assert [one.name for one in benchmarks(tmp_path)] == ["command", "package"]


def test_every_benchmark_is_listed_with_what_it_measures() -> None:
    ran = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True)
    for one in benchmarks():
        assert one.measures, one.name
        assert f"{one.name}: {one.measures}" in ran.stdout


def test_every_benchmark_says_which_claim_it_backs_and_how_it_is_shortened() -> None:
    found = list(benchmarks())
    assert [one.name for one in found if not one.claim] == []
    assert [one.name for one in found if not one.short_runs] == []


def test_short_forms_name_options_that_exist() -> None:
    for one in benchmarks():
        place = ROOT / "benchmarks" / one.name
        source = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
        for option in {word for run in one.short_runs for word in run if word.startswith("--")}:
            assert f'"{option}"' in source, f"{one.name} {option}"
