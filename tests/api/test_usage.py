"""GET /v1/usage: the sums of what went through the gateway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from yarl import URL

from proxy.api.openai.schemas import openapi_document
from tests.conftest import StartGateway
from tests.harness import ADMINISTERED, AS_ADMIN, TestGateway, Upstream, fails

DOCUMENT: Any = openapi_document()


def faults(value: Any) -> list[str]:
    schema = {"$ref": "#/components/schemas/UsageReport", "components": DOCUMENT["components"]}
    return [str(problem) for problem in OAS31Validator(schema).iter_errors(value)]


@pytest.mark.parametrize("by", ["model", "provider", "day", "status"])
async def test_requests_are_summed_up_as_described(gateway: TestGateway, upstream: Upstream, by: str) -> None:
    await gateway.chat()
    await gateway.rows(1)
    upstream.answer(fails(400))
    await gateway.chat()
    rows = await gateway.rows(2)

    status, report = await gateway.get(f"/v1/usage?by={by}")

    assert status == 200
    assert faults(report) == []
    assert report["by"] == by
    assert report["total"]["requests"] == sum(row["requests"] for row in report["data"]) == 2
    assert report["total"]["errors"] == 1
    assert report["total"]["input_tokens"] == sum(row.input_tokens.value for row in rows)
    assert all(row[by] for row in report["data"])


async def test_bounds_are_half_open_and_may_have_a_zone(gateway: TestGateway) -> None:
    await gateway.chat()
    row = await gateway.row()
    zoned = (row.timestamp + timedelta(hours=9)).replace(tzinfo=None).isoformat() + "+09:00"

    for bound, requests in ((f"since={zoned}", 1), (f"until={zoned}", 0)):
        status, report = await gateway.get(f"/v1/usage?by=day&{bound}")
        assert status == 200
        assert report["total"]["requests"] == requests
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    _, report = await gateway.get(f"/v1/usage?by=day&since={tomorrow}")
    assert report["data"] == []


EDGES = [
    "0001-01-01",
    "0001-01-01T00:00:00.000001Z",
    "9999-12-31",
    "9999-12-31T23:30:00Z",
    "9999-12-31T23:59:59.999999Z",
]


@pytest.mark.parametrize("path", ["v1/usage?by=model&", "admin/usage?by=day&", "admin/requests?", "admin/audit?"])
async def test_every_time_of_the_calendar_is_a_bound(start_gateway: StartGateway, database_url: str, path: str) -> None:
    gateway = await start_gateway(database_url=database_url, **ADMINISTERED)
    for bound in ("since", "until"):
        for moment in EDGES:
            async with gateway.http.get(f"{gateway.url}{path}{bound}={moment}", headers=AS_ADMIN) as response:
                assert response.status == 200, await response.text()
        for beyond in ("0001-01-01T00:00:00%2B05:00", "9999-12-31T23:59:59-05:00"):  # in UTC they are no times
            target = URL(f"{gateway.url}{path}{bound}={beyond}", encoded=True)
            async with gateway.http.get(target, headers=AS_ADMIN) as response:
                assert (response.status, bound in await response.text()) == (400, True)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "by"),
        ("by=colour", "by"),
        ("by=day&since=now", "since"),
        ("by=day&until=1&until=2", "until"),
        ("by=day&x", "x"),
    ],
)
async def test_wrong_arguments_are_refused_by_name(gateway: TestGateway, query: str, param: str) -> None:
    status, answer = await gateway.get(f"/v1/usage?{query}")

    assert status == 400
    assert answer["error"]["param"] == param
    assert param in answer["error"]["message"]


@pytest.mark.parametrize("owner", ["key", "team", "organisation"])
async def test_an_owner_that_there_is_not_is_told(gateway: TestGateway, owner: str) -> None:
    await gateway.chat()
    await gateway.rows(1)

    status, answer = await gateway.get(f"/v1/usage?by=day&{owner}=typo")

    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert answer["error"]["message"] == f"There is no {owner} 'typo'."


async def test_only_those_with_the_key_are_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-gateway")

    assert (await gateway.get("/v1/usage?by=model"))[0] == 401


async def test_a_database_that_is_away_is_503_and_no_defect(gateway: TestGateway, tmp_path: Path) -> None:
    (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")

    status, answer = await gateway.get("/v1/usage?by=model")

    assert status == 503
    assert answer["error"]["type"] == "server_error"
