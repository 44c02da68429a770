"""What must stay true of the project as a whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from proxy.api.openai.errors import TABLE
from proxy.domain import errors
from proxy.settings import Settings

ROOT = Path(proxy.__file__).parents[1]
SETTINGS_PAGE = ROOT / "docs" / "configuration.md"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "proxy").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)


def test_every_setting_is_documented() -> None:
    documented = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", SETTINGS_PAGE.read_text()))
    assert {name.upper() for name in Settings.model_fields} <= documented


def test_the_defaults_that_are_documented_are_in_force() -> None:
    for line in SETTINGS_PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([A-Z][A-Z0-9_]+)`", cells[0])
        if len(cells) != 3 or not names or names[0].lower() not in Settings.model_fields:
            continue
        stated = cells[1].split(", ")
        if len(stated) != len(names):
            continue
        for name, default in zip(names, stated, strict=True):
            value = Settings.model_fields[name.lower()].default
            if isinstance(value, bool):
                assert default == str(value).lower(), name
            elif isinstance(value, int | float):
                assert float(default) == value, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_every_error_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GatewayError)}
    assert kinds == set(TABLE)


def test_every_code_of_an_error_is_explained_with_its_status() -> None:
    """In the table of docs/operations.md, whose first cells are like "503 `one`, `another`"; and none that is not."""
    explained = set()
    for line in (ROOT / "docs" / "operations.md").read_text().splitlines():
        if first := re.match(r"\| (\d{3}) (`\w+`(?:, `\w+`)*) \|", line):
            explained |= {(int(first[1]), code) for code in re.findall(r"\w+", first[2])}
    assert {row for row in TABLE.values() if row[0] is not None} <= explained
    sources = "".join(path.read_text() for path in (ROOT / "proxy").rglob("*.py"))
    assert {code for _, code in explained} <= set(re.findall(r'"(\w+)"', sources))


def test_importing_any_module_does_nothing() -> None:
    """No file, no socket, no environment, no output: work waits until it is asked for."""
    code = f"""
import sys
work = ("socket.connect", "sqlite3.connect", "subprocess.Popen")
sys.addaudithook(lambda event, _: sys.exit(event) if event in work else None)
for name in {MODULES}:
    __import__(name)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


@pytest.mark.parametrize(
    "forbidden", [r"mock\.patch", r"monkeypatch\.setattr", r"MagicMock", r"pytest\.skip", r"mark\.skip", r"mark\.xfail"]
)
def test_tests_neither_patch_nor_skip(forbidden: str) -> None:
    """Collaborators come in by argument; what cannot run is a failure."""
    for path in (ROOT / "tests").rglob("*.py"):
        if path != Path(__file__):
            assert not re.search(forbidden, path.read_text()), path


def test_no_file_of_the_lock_names_an_index() -> None:
    for path in ROOT.glob("requirements*.txt"):
        text = path.read_text()
        assert "--index" not in text
        assert "://" not in text
        assert "--hash=sha256:" in text


def test_no_test_is_named_after_the_moment() -> None:
    """Workers that run side by side must collect the same names."""
    moments = r"\b(time\.time|time\.monotonic|datetime\.now|uuid4|token_hex|random\.\w+)\("
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.parametrize":
                assert not re.search(moments, ast.unparse(node)), f"{path}:{node.lineno}"
