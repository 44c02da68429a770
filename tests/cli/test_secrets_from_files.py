"""Secrets that orchestrators mount as files: NAME_FILE stands for NAME, in settings, commands and the configuration."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.bootstrap.unread_variables import unread_variables
from proxy.cli import main
from proxy.cli.failures import settings_or_fail
from proxy.config.problems import ConfigErrors
from tests.cli.test_check_config import run
from tests.config.documents import SMALL, load
from tests.conftest import StartGateway

WITH_KEY = SMALL.replace("{base_url", '{api_key: "${ONE_KEY}", headers: {X-Key: "Key ${ONE_KEY}"}, base_url')
Written = Callable[[str | bytes], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file, and gives its path."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "secret"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


@pytest.mark.parametrize("name", ["LLMGATEWAY_MASTER_KEY", "OPENROUTER_API_KEY", "LLMGATEWAY_VALKEY_URL"])
def test_a_setting_is_what_its_file_holds(name: str, written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{name}_FILE", written("redis://secret\r\n"))
    monkeypatch.setenv(name, " ")  # as a compose file gives what is not set
    assert getattr(settings_or_fail(), name.lower()).get_secret_value() == "redis://secret"


def test_a_database_is_what_its_file_says(written: Written) -> None:
    shown = run("check-config", DATABASE_URL_FILE=written("postgresql://u:geheim@db.example/books\n"))
    assert (shown.exit_code, "geheim" in shown.output) == (0, False)
    assert "db.example" in shown.stdout


def test_a_reference_is_what_its_file_holds(written: Written) -> None:
    provider = load(WITH_KEY, ONE_KEY_FILE=written("\ufeffsk-secret-1\n")).config.providers["local"]
    assert provider.api_key is not None
    assert provider.api_key.get_secret_value() == "sk-secret-1"
    assert provider.headers["X-Key"].get_secret_value() == "Key sk-secret-1"


def test_the_line_end_of_a_file_is_no_part_of_what_it_stands_for(written: Written) -> None:
    """As nearly all files have one: a URL or a name with it would be none, and within a value it would stay."""
    path = written("http://127.0.0.1:9\r\n")
    assert run("check-config", OPENROUTER_BASE_URL_FILE=path).exit_code == 0
    document = SMALL.replace("http://127.0.0.1:8000/v1", '"${ONE_URL}/v1"')
    assert load(document, ONE_URL_FILE=path).config.providers["local"].base_url == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        ("k" * 70_000, "has more than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_by_the_variables_name(
    text: str | bytes, why: str, written: Written
) -> None:
    path = written(text)
    refused = run("check-config", OPENROUTER_API_KEY_FILE=path, LLMGATEWAY_MASTER_KEY_FILE=path)
    assert refused.exit_code == 1
    assert f"the file that OPENROUTER_API_KEY_FILE names {why}" in refused.stderr
    assert f"the file that LLMGATEWAY_MASTER_KEY_FILE names {why}" in refused.stderr
    with pytest.raises(ConfigErrors, match=f"the file that ONE_KEY_FILE names {why}"):
        load(WITH_KEY, ONE_KEY_FILE=path)


def test_a_file_that_is_none_is_refused_by_the_variables_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (("absent", "cannot be read: No such file or directory"), ("pipe", "is no regular file")):
        refused = run("check-config", DATABASE_URL_FILE=str(tmp_path / path))
        assert (refused.exit_code, f"the file that DATABASE_URL_FILE names {why}" in refused.stderr) == (1, True)


def test_a_variable_and_its_file_are_one_too_many(written: Written) -> None:
    path = written("sk-in-the-file")
    refused = run("check-config", OPENROUTER_API_KEY="sk-given", OPENROUTER_API_KEY_FILE=path)
    assert refused.exit_code == 1
    assert "OPENROUTER_API_KEY and OPENROUTER_API_KEY_FILE are both set: remove one of them" in refused.stderr
    assert "sk-" not in refused.output
    with pytest.raises(ConfigErrors, match="ONE_KEY and ONE_KEY_FILE are both set"):
        load(WITH_KEY, ONE_KEY="sk-given", ONE_KEY_FILE=path)


def test_a_setting_that_is_no_secret_is_in_no_file() -> None:
    assert run("check-config", MAX_IN_FLIGHT_PER_KEY_FILE="/absent").exit_code == 0


async def test_commands_take_the_master_key_from_its_file(start_gateway: StartGateway, written: Written) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-master")
    told = await asyncio.to_thread(
        CliRunner().invoke,
        main,
        ["teams", "list", "--url", str(gateway.url)],
        env={"LLMGATEWAY_MASTER_KEY_FILE": written("sk-master\n")},
    )
    assert told.exit_code == 0, told.output


def test_the_piccolo_command_takes_the_database_from_its_file(tmp_path: Path, written: Written) -> None:
    script = "import piccolo_conf; print(piccolo_conf.DB.path)"
    variables = {**os.environ, "DATABASE_URL_FILE": written(f"sqlite:///{tmp_path}/books.db\n")}
    told = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == f"{tmp_path}/books.db"


def test_only_files_that_stand_for_something_are_read(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(WITH_KEY.replace("ONE_KEY", "LLMGATEWAY_ONE_KEY"))
    read = ["DATABASE_URL_FILE", "LLMGATEWAY_MASTER_KEY_FILE", "LLMGATEWAY_ONE_KEY_FILE"]
    unread = unread_variables([*read, "LLMGATEWAY_CONFIG_FILE", "LLMGATEWAY_MASTER_KEY_FIL"], file)
    assert [each.meant for each in unread] == ["LLMGATEWAY_CONFIG", "LLMGATEWAY_MASTER_KEY_FILE"]
