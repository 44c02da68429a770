"""Keys that were mounted with the end of a line, and those that no header can carry."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.settings import Settings
from tests.cli.test_check_config import run
from tests.config.documents import SMALL, load
from tests.conftest import StartGateway
from tests.harness import TestGateway

WITH_KEY = SMALL.replace("{base_url", '{api_key: "${KEY}", headers: {X-Key: "${KEY}"}, base_url')


@pytest.mark.parametrize("name", ["LLMGATEWAY_MASTER_KEY", "OPENROUTER_API_KEY", "LLMGATEWAY_VALKEY_URL"])
def test_what_surrounds_a_secret_is_not_part_of_it(name: str) -> None:
    settings = Settings(**{name.lower(): " redis://h\r\n"})  # type: ignore[arg-type]
    assert getattr(settings, name.lower()).get_secret_value() == "redis://h"


def test_what_surrounds_a_key_of_the_file_is_not_part_of_it() -> None:
    provider = load(WITH_KEY, KEY="sk-secret-1\n").config.providers["local"]
    assert provider.api_key is not None
    assert [each.get_secret_value() for each in (provider.api_key, provider.headers["X-Key"])] == ["sk-secret-1"] * 2


@pytest.mark.parametrize("key", ["sk-secret\n1", "sk-secret\t1", "sk-secret\x7f", "sk-secret\N{LINE SEPARATOR}1"])
@pytest.mark.parametrize("name", ["LLMGATEWAY_MASTER_KEY", "OPENROUTER_API_KEY"])
def test_a_key_that_no_header_can_carry_is_refused_by_name(name: str, key: str) -> None:
    refused = run("check-config", **{name: key})
    assert refused.exit_code == 1
    assert f"{name}: has characters in it that no HTTP header can carry" in refused.stderr
    assert "sk-secret" not in refused.output


async def test_the_gateway_and_its_commands_take_a_key_with_the_end_of_a_line(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-master\n")
    for command in (("health",), ("models",), ("teams", "list")):
        told = await asyncio.to_thread(
            CliRunner().invoke,
            main,
            [*command, "--url", str(gateway.url)],
            env={"LLMGATEWAY_MASTER_KEY": "sk-master\n", "LLMGATEWAY_MASTER_KEY_CALLS_MODELS": "true"},
        )
        assert told.exit_code == 0, told.output


async def test_a_tag_that_no_header_can_carry_is_not_an_absent_gateway(gateway: TestGateway) -> None:
    command = ("route", "--model", "m", "--tag", "a\nb", "--url", str(gateway.url))
    refused = await asyncio.to_thread(CliRunner().invoke, main, command)
    assert refused.exit_code == 1
    assert "no HTTP header can carry" in refused.stderr
    assert "No gateway" not in refused.stderr
