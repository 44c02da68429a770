"""What is administered while PostgreSQL is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.migrations import migrate
from tests.admin.company import MASTER, ask
from tests.conftest import StartGateway
from tests.harness import TestGateway, Upstream
from tests.persistence.test_arrival import Server, running_server, server

__all__ = ["running_server", "server"]  # fixtures

CONFIGURATION = """
providers: {{one: {{base_url: "{url}"}}}}
models: {{{model}: {{deployments: [{{provider: one, model: x}}]}}}}
"""
PRICE = {"model": "some/model", "input_cost_per_1m_tokens": "1", "output_cost_per_1m_tokens": "2"}


@pytest.fixture
def file(tmp_path: Path, upstream: Upstream) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIGURATION.format(url=upstream.url, model="before"))
    return path


@pytest.fixture
async def gateway(server: Server, start_gateway: StartGateway, file: Path) -> TestGateway:
    """It has its database until the server is stopped."""
    url = await server.new_database()
    async with open_database(url) as database:
        await migrate(database)
    return await start_gateway(database_url=url, llmgateway_master_key=MASTER, llmgateway_config=str(file))


@pytest.fixture
def unnoted(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, object]]]:
    """What the log has in place of the audit log, at the end of the test."""
    found: list[dict[str, object]] = []
    yield found
    assert found == [
        {name: record.__dict__[name] for name in ("action", "object")}
        for record in caplog.get_records("call")
        if record.message == "a change is not in the audit log" and record.levelno == logging.ERROR
    ]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/prices"), ("POST", "/prices"), ("GET", "/limits"), ("GET", "/requests")]
)
async def test_what_needs_the_database_says_so(server: Server, gateway: TestGateway, method: str, path: str) -> None:
    await server.stop()
    answer = await ask(gateway, MASTER, method, path, PRICE if method == "POST" else None)
    assert (answer.status, answer.content_type) == (503, "application/problem+json")
    assert "The database does not answer" in answer.body["detail"]


async def test_a_deployment_is_drained_and_enabled(
    server: Server, gateway: TestGateway, unnoted: list[dict[str, object]]
) -> None:
    (deployment,) = (await ask(gateway, MASTER, "GET", "/deployments")).body["data"]
    name = deployment["name"]
    await server.stop()
    for action, is_drained in (("drain", True), ("enable", False)):
        answer = await ask(gateway, MASTER, "POST", f"/deployments/{name}/{action}")
        assert (answer.status, answer.body["drained"]) == (200, is_drained)
        assert (await ask(gateway, MASTER, "GET", f"/deployments/{name}")).body["drained"] is is_drained
        unnoted.append({"action": action, "object": f"deployments/{name}"})
    assert (await ask(gateway, MASTER, "POST", "/deployments/none/drain")).status == 404


async def test_a_configuration_that_is_in_force_is_answered_for(
    server: Server, gateway: TestGateway, file: Path, upstream: Upstream, unnoted: list[dict[str, object]]
) -> None:
    await server.stop()
    file.write_text(CONFIGURATION.format(url=upstream.url, model="[after"))
    assert (await ask(gateway, MASTER, "POST", "/config/reload")).status == 422
    file.write_text(CONFIGURATION.format(url=upstream.url, model="after"))
    answer = await ask(gateway, MASTER, "POST", "/config/reload")
    assert (answer.status, answer.body["problems"]) == (200, [])
    unnoted.append({"action": "reload", "object": "configuration/file"})
