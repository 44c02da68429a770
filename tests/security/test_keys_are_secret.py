"""Keys in clear are nowhere: not in logs, errors, rows, files of the data directory, nor in what upstreams get."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.sessions import session
from tests.access.tenancy import Tenancy, scope
from tests.conftest import StartGateway
from tests.harness import HELLO, TestGateway, Upstream, fails, says

MASTER = "the-master-key-is-a-canary-4711"


@pytest.fixture
def tenancy(database_url: str) -> Tenancy:
    return Tenancy(database_url)


async def contents(url: str) -> str:
    """All rows of all tables, as text."""
    async with open_database(url) as database, session(database) as reader:
        names = await reader.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            if reader.is_postgres
            else "SELECT name FROM sqlite_master WHERE type = 'table'"
        )
        rows = [tuple(row) for (name,) in names for row in await reader.fetch(f"SELECT * FROM {name}")]
    return str(rows)


def files_below(directory: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_no_key_is_anywhere_in_clear(
    start_gateway: StartGateway,
    database_url: str,
    tenancy: Tenancy,
    upstream: Upstream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway = await start_gateway(
        database_url=database_url,
        llmgateway_master_key=MASTER,
        llmgateway_store_payloads="all",
        llmgateway_traces="all",
        retry_max_retries=0,
    )
    good, _ = await tenancy.key()
    limited, _ = await tenancy.key(models=scope("other"))
    disabled, _ = await tenancy.key(disabled=True)
    unknown = "sk-" + "unknownUNKNOWN_0123456789"
    canaries = [good, limited, disabled, unknown, MASTER]
    upstream.answer(fails(500, message="no luck"), says())
    told = ""
    for secret in canaries * 2:
        for headers in ({}, {"Idempotency_Key": f"k-{secret[-4:]}"}):
            status, got, raw = await gateway.raw_chat(HELLO, Authorization=f"Bearer {secret}", **headers)
            told += f"{status} {got} {raw!r}"
        for path in ("health", "v1/models", "v1/usage?by=model", "admin/config/reload", "nowhere"):
            async with gateway.http.get(
                f"{gateway.url}{path}", headers={"Authorization": f"Bearer {secret}"}
            ) as response:
                told += f"{response.status} {response.headers} {await response.text()}"
    await gateway.rows(6)
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    sent = str(upstream.headers) + str(upstream.bodies)
    kept = await contents(database_url)
    files = b"".join(files_below(Path(gateway.settings.llmgateway_data_dir)))
    assert "no luck" in told
    for secret in canaries:
        for place in (told, logged, sent, kept):
            assert secret not in place
            assert secret[3:15] not in place
        assert secret.encode() not in files
    assert f"sk-…{disabled[-4:]}" in logged


async def test_keys_in_the_wrong_place_are_not_logged(gateway: TestGateway, caplog: pytest.LogCaptureFixture) -> None:
    """In a path, as a model, or as a request's id, which would go to rows and answers besides."""
    caplog.set_level(logging.DEBUG)
    key = "sk-" + "misplacedMISPLACED_0123456789"
    for path in ("v1/models/", "v1/x/", "admin/keys/", "docs/", f"v1/requests/{key}/", "v1/Bearer "):
        async with gateway.http.get(gateway.url / f"{path}{key}", headers={"x-request-id": key}) as response:
            assert response.headers["x-request-id"].startswith("req-")
    _, headers, _ = await gateway.raw_chat(HELLO, **{"x-request-id": f"mine_{key}"})
    assert headers["x-request-id"].startswith("req-")
    assert (await gateway.row()).request_id == headers["x-request-id"]
    await gateway.raw_chat({**HELLO, "model": key})
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert logged.count("[redacted]") >= 7
    assert key[3:] not in logged


async def test_keys_in_the_path_of_a_request_that_meets_a_defect_are_not_logged(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def rules() -> Any:
        raise ZeroDivisionError

    gateway = await start_gateway(rules=rules)
    async with gateway.http.get(gateway.url / "v1/models/sk-misplacedMISPLACED") as response:
        assert response.status == 500
    (defect,) = [record for record in caplog.records if record.message == "defect"]
    assert defect.__dict__["path"] == "/v1/models/[redacted]"


async def test_refusals_are_told_once_a_second(start_gateway: StartGateway, caplog: pytest.LogCaptureFixture) -> None:
    """A flood of wrong keys fills no disk."""
    gateway = await start_gateway(llmgateway_master_key=MASTER)
    for number in range(50):
        status, _, _ = await gateway.raw_chat(Authorization=f"Bearer sk-wrong-wrong-wrong-{number}")
        assert status == 401
    refused = [record for record in caplog.records if record.message == "API key refused"]
    assert 1 <= len(refused) < 25
    assert all(record.levelno == logging.WARNING for record in refused)
