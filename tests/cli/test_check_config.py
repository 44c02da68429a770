"""llmgateway check-config with a file, config-schema, import-litellm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.config.editors import json_schema
from tests.config.documents import EVERYTHING, SMALL
from tests.config.test_litellm import FILE

VARIABLES = {"KEY": "sk-secret-1", "TITLE": "sk-secret-2", "LIMIT": "7"}


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={**VARIABLES, **environment})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(EVERYTHING)
    return path


def test_a_valid_file_is_said_so(file: Path) -> None:
    checked = run("check-config", file)
    assert checked.exit_code == 0, checked.output
    assert f"{file} is valid: 2 providers, 2 models, 3 deployments." in checked.stdout
    assert "providers.openrouter" not in checked.stdout


def test_a_file_may_come_through_a_pipe() -> None:
    end, start = os.pipe()
    os.write(start, SMALL.encode())
    os.close(start)
    checked = run("check-config", f"/dev/fd/{end}")
    os.close(end)
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("set_to", "seconds"), [({"OPENROUTER": "9"}, "9.0"), ({"OPENROUTER": "9", "ANSWER": "90"}, "90.0"), ({}, "600.0")]
)
def test_the_time_for_whole_answers_is_shown_that_is_in_force(file: Path, set_to: dict[str, str], seconds: str) -> None:
    shown = run("check-config", file, **{f"{name}_TIMEOUT_SECONDS": value for name, value in set_to.items()})
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("ANSWER_TIMEOUT_SECONDS"))
    assert line.split()[1] == seconds


def test_show_gives_each_value_with_its_origin_and_masks_secrets(file: Path) -> None:
    shown = run("check-config", file, "--show", CONNECT_TIMEOUT_SECONDS="9")
    assert shown.exit_code == 0
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line}
    assert rows["models.gpt-4o.deployments[0].weight"] == ["3", f"{file}:28"]
    assert rows["providers.openrouter.api_key"] == ["********", f"{file}:7", "(KEY)"]
    assert rows["providers.local.timeouts.connect_seconds"] == ["9", "CONNECT_TIMEOUT_SECONDS"]
    assert rows["CONNECT_TIMEOUT_SECONDS"][:2] == ["9.0", "environment"]
    assert "sk-secret" not in shown.output


def test_all_problems_are_told_and_the_exit_code_is_1(file: Path) -> None:
    file.write_text(SMALL.replace("provider: local", "provider: lokal, wieght: 2"))
    refused = run("check-config", file)
    assert refused.exit_code == 1
    assert f"{file}:5: models.one.deployments[0].provider: there is no provider 'lokal'; did you mean" in refused.stderr
    assert f"{file}:5: models.one.deployments[0].wieght: unknown key; did you mean 'weight'?" in refused.stderr
    assert "is valid" not in refused.stdout


def test_the_file_is_found_by_the_setting_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "the built-in demo upstream" in run("check-config", OPENROUTER_API_KEY="").stdout
    (tmp_path / "gateway.yaml").write_text(SMALL)
    assert "gateway.yaml is valid" in run("check-config").stdout
    missing = run("check-config", LLMGATEWAY_CONFIG="other.yaml")
    assert missing.exit_code == 1
    assert "other.yaml: cannot be read: No such file or directory" in missing.stderr


def test_the_schema_is_printed_as_it_is() -> None:
    assert json.loads(run("config-schema").stdout) == json_schema()


def test_a_converted_file_passes_the_check(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "config.yaml", tmp_path / "gateway.yaml"
    theirs.write_text(FILE)
    converted = run("import-litellm", theirs, "-o", ours)
    assert converted.exit_code == 0
    assert converted.stdout == ""
    assert "Not carried over: config.yaml:7: model_list[0].litellm_params.api_version: " in converted.stderr
    keys = dict.fromkeys(("AZURE_API_KEY_EU", "AZURE_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"), "sk-x")
    checked = run("check-config", ours, AZURE_API_BASE_CA="https://ca.example", **keys)
    assert checked.exit_code == 0, checked.output
    assert run("import-litellm", theirs).stdout == ours.read_text()


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
def test_files_are_printed_in_utf_8_whatever_the_locale(tmp_path: Path, charset: str) -> None:
    """As they are read: an escaped letter would be another name."""
    theirs = tmp_path / "config.yaml"
    model = "{model_name: 模型é, litellm_params: {model: openai/x, api_key: os.environ/KEY}}"
    theirs.write_text(f"model_list: [{model}]", encoding="utf-8")
    runner = CliRunner(charset=charset)
    assert "模型é" in runner.invoke(main, ["import-litellm", str(theirs)]).stdout_bytes.decode()
    assert json.loads(runner.invoke(main, ["config-schema"]).stdout_bytes.decode()) == json_schema()


def test_an_existing_file_is_not_overwritten(tmp_path: Path, file: Path) -> None:
    theirs = tmp_path / "config.yaml"
    theirs.write_text(FILE)
    refused = run("import-litellm", theirs, "-o", file)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert file.read_text() == EVERYTHING


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "config.yaml"
    theirs.write_text("model_list: [\n")
    refused = run("import-litellm", theirs)
    assert refused.exit_code == 1
    assert "config.yaml:2:1: not YAML" in refused.stderr
    assert "cannot be read" in run("import-litellm", tmp_path / "none.yaml").stderr
    theirs.write_bytes(b"\xff")
    assert "is not UTF-8" in run("import-litellm", theirs).stderr


@pytest.mark.parametrize("level", ["debug", "Warning ", "INFO"])
def test_a_log_level_may_be_written_in_any_case(level: str) -> None:
    shown = run("check-config", LLMGATEWAY_LOG_LEVEL=level)
    assert shown.exit_code == 0, shown.output
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("LLMGATEWAY_LOG_LEVEL")]
    assert line.split()[1] == level.strip().upper()
