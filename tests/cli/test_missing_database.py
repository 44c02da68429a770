"""Commands in a place where no gateway has been."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main

SHA256 = "0" * 64


def run(directory: Path, *arguments: str) -> Result:
    """A command whose database is in the directory."""
    given = {"DATABASE_URL": None, "LLMGATEWAY_DATA_DIR": str(directory), "OPENROUTER_API_KEY": "sk-or-none"}
    return CliRunner().invoke(main, arguments, env=given)


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs",),
        ("usage", "--by", "model"),
        ("explain", "some-request"),
        ("payload", "00000000-0000-4000-8000-000000000000"),
        ("reconcile",),
        ("prices", "list"),
        ("prices", "history", "z-ai/glm-4.6"),
        ("prices", "sync", "--dry-run"),
        ("keys", "list"),
        ("keys", "revoke", "bot"),
        ("teams", "list"),
        ("organisations", "list"),
        ("budgets", "list"),
        ("limits", "list"),
        ("audit",),
    ],
    ids=" ".join,
)
def test_who_only_reads_makes_no_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path / "none", *arguments)
    assert done.exit_code == 1
    assert f"There is no database {tmp_path / 'none' / 'llmgateway.db'}." in done.stderr
    assert "LLMGATEWAY_DATA_DIR" in done.stderr
    assert "DATABASE_URL" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate",),
        ("prices", "set", "some/model", "--input", "1", "--output", "2"),
        ("organisations", "create", "acme"),
        ("teams", "create", "search"),
        ("keys", "create", "bot"),
        ("keys", "import", "bot", "--hash", SHA256),
        ("budgets", "create", "all", "100", "--gateway"),
        ("limits", "set", "--gateway", "--rpm", "60"),
    ],
    ids=" ".join,
)
def test_who_adds_something_makes_the_database(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path / "new", *arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "new" / "llmgateway.db").is_file()
    assert run(tmp_path / "new", "logs").exit_code == 0
