"""Commands that ask a running gateway: where they look for it, and what they say of what they find."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from tests.access.tenancy import Tenancy
from tests.cli.test_check_config import run
from tests.conftest import StartGateway
from tests.harness import TestGateway, Upstream


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
    ],
)
@pytest.mark.parametrize("command", [("health",), ("models",), ("route", "--model", "m")], ids=lambda words: words[0])
def test_the_gateway_is_asked_where_it_listens(command: tuple[str, ...], host: str, asked: str) -> None:
    told = run(*command, LLMGATEWAY_HOST=host, LLMGATEWAY_PORT="1", LLMGATEWAY_MASTER_KEY="sk-x")
    assert told.exit_code == 1
    assert f"No gateway answers at http://{asked}:1/" in told.stderr
    assert "InvalidURL" not in told.stderr


async def ask(gateway: TestGateway, *arguments: str, path: str = "") -> Result:
    """What a command says of the gateway, or of what is below it."""
    return await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--url", f"{gateway.url}{path}"])


async def test_no_models_are_none(upstream: Upstream) -> None:
    """A gateway whose list is empty: of models that a key may call there can be none."""
    upstream.models = []
    told = await asyncio.to_thread(CliRunner().invoke, main, ["models", "--url", upstream.url])
    assert (told.exit_code, told.stdout, told.stderr) == (0, "", "None.\n")


@pytest.mark.parametrize("path", ["nope", "admin"])
@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_what_is_no_gateway_is_said_so(gateway: TestGateway, path: str, form: tuple[str, ...]) -> None:
    told = await ask(gateway, "health", *form, path=path)
    assert told.exit_code == 1
    assert f"No LLM Gateway answers at {gateway.url}{path}" in told.stderr


async def test_an_error_of_another_server_is_told(gateway: TestGateway) -> None:
    for command in (("models",), ("route", "--model", "m")):
        told = await ask(gateway, *command, path="admin")
        assert isinstance(told.exception, SystemExit)
        assert told.exit_code == 1


@pytest.mark.parametrize("command", [("models",), ("route", "--model", "z-ai/glm-4.6")], ids=lambda words: words[0])
async def test_a_gateway_of_virtual_keys_alone_is_asked_with_one(
    start_gateway: StartGateway, sqlite_url: str, command: tuple[str, ...]
) -> None:
    secret, _ = await Tenancy(sqlite_url).key()
    gateway = await start_gateway()
    refused = await ask(gateway, *command)
    assert refused.exit_code == 1
    assert "Set LLMGATEWAY_MASTER_KEY to a key that may ask for this, or name another variable (--key-env)." in (
        refused.stderr
    )
    told = await asyncio.to_thread(
        CliRunner(env={"MY_KEY": f"{secret}\n"}).invoke,
        main,
        [*command, "--key-env", "MY_KEY", "--url", str(gateway.url)],
    )
    assert told.exit_code == 0, told.output
    assert "z-ai/glm-4.6" in told.stdout
