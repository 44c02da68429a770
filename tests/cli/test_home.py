"""A path that begins with `~` is below the home directory, also where no shell has read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_check_config import run
from tests.config.documents import SMALL


def test_the_data_directory_and_the_file_may_be_below_home(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(SMALL)
    places = {"LLMGATEWAY_DATA_DIR": "~/data", "LLMGATEWAY_CONFIG": "~/gateway.yaml"}
    shown = run("check-config", HOME=str(tmp_path), **places)
    assert shown.exit_code == 0, shown.output
    assert f"{tmp_path}/gateway.yaml is valid" in shown.stdout
    assert f"SQLite {tmp_path}/data/llmgateway.db" in shown.stdout


@pytest.mark.parametrize("name", ["LLMGATEWAY_DATA_DIR", "LLMGATEWAY_CONFIG"])
def test_a_home_that_nobody_has_is_said_so(name: str) -> None:
    refused = run("check-config", **{name: "~nobody-at-all/data"})
    assert refused.exit_code == 1
    assert f"{name}: begins with ~, but that home directory is not known" in refused.stderr
