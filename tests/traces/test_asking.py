"""`GET /v1/requests/{id}` and `llmgateway explain`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from openapi_schema_validator import OAS31Validator

from proxy.api.openai.schemas import openapi_document
from proxy.cli import main
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus, UsageSource
from proxy.domain.trace import RequestTrace, TracedAttempt
from proxy.domain.values import ModelName, TokenCount
from proxy.infrastructure.persistence.database import open_database
from tests.conftest import StartGateway
from tests.harness import HELLO, TestGateway
from tests.traces.conftest import FALLEN_BACK, book, row

DOCUMENT: Any = openapi_document()


def faults(value: Any) -> list[str]:
    schema = {"$ref": "#/components/schemas/BookedRequest", "components": DOCUMENT["components"]}
    return [str(problem) for problem in OAS31Validator(schema).iter_errors(value)]


async def store(url: str, *booked: tuple[RequestLog, RequestTrace | None]) -> None:
    async with open_database(url) as database:
        await book(database, *booked)


def explain(url: str, *arguments: str) -> Result:
    return CliRunner(env={"DATABASE_URL": url}).invoke(main, ["explain", *arguments])


# Over HTTP


async def test_a_request_is_told_as_described(start_gateway: StartGateway, database_url: str) -> None:
    gateway = await start_gateway(database_url=database_url)
    await gateway.chat(x_request_id="served")
    await gateway.rows(1)
    mine = row("mine", cost_source=CostSource.NONE)
    await store(database_url, (mine, FALLEN_BACK))

    for asked in ("mine", str(mine.id)):
        status, told = await gateway.get(f"/v1/requests/{asked}")
        assert (status, faults(told)) == (200, [])
        assert (told["id"], told["request_id"], told["object"]) == (str(mine.id), "mine", "request")
        assert told["trace"] == FALLEN_BACK.as_dict()
    status, told = await gateway.get("/v1/requests/served")
    assert (status, faults(told), told["trace"]) == (200, [], None)
    assert (told["status"], told["output_tokens"], told["reported_cost_usd"]) == ("success", 5, "0.00123")


async def test_a_request_for_a_model_of_a_name_that_no_column_takes_is_told(gateway: TestGateway) -> None:
    await gateway.chat({**HELLO, "model": "\x00"}, x_request_id="blank")
    await gateway.rows(1)
    status, told = await gateway.get("/v1/requests/blank")
    assert (status, told["model"], told["requested_model"]) == (200, "unknown", "unknown")


@pytest.mark.parametrize("asked", ["nobody's", "%00", "a%2Fb", "%F0%9F%A6%84", "x" * 500])
async def test_a_request_that_is_not_booked_is_404(gateway: TestGateway, asked: str) -> None:
    async with gateway.http.get(f"{gateway.url}v1/requests/{asked}") as response:
        answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (404, "request_not_found")
    assert answer["error"]["type"] == "invalid_request_error"


async def test_only_those_with_the_key_are_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(llmgateway_master_key="sk-gateway")
    assert (await gateway.get("/v1/requests/any"))[0] == 401


async def test_a_database_that_is_away_is_503_and_no_defect(gateway: TestGateway, tmp_path: Path) -> None:
    (tmp_path / "gateway.db").rename(tmp_path / "elsewhere.db")
    status, answer = await gateway.get("/v1/requests/any")
    assert (status, answer["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize("mode", ["off", "notable", "all"])
async def test_health_tells_of_traces(start_gateway: StartGateway, mode: str) -> None:
    gateway = await start_gateway(llmgateway_traces=mode)
    _, health = await gateway.get("/health")
    assert health["traces"]["mode"] == mode


# On the command line


def test_a_request_is_explained_in_words(database_url: str) -> None:
    booked = row(
        "mine",
        requested_model="m",
        http_status=200,
        attempts=4,
        was_fallback=True,
        input_tokens=TokenCount(10),
        output_tokens=TokenCount(5),
        usage_source=UsageSource.REPORTED,
        reported_cost=FALLEN_BACK.attempts[1].cost,
        cost_source=CostSource.REPORTED,
        response_time_ms=1300,
        time_to_first_byte_ms=1010,
        service_tier="flex",
    )
    asyncio.run(store(database_url, (booked, FALLEN_BACK)))
    shown = explain(database_url, "mine")
    assert shown.exit_code == 0, shown.output
    for line in (
        "model     m -> m/x at p, a fallback",
        "outcome   success, HTTP 200",
        "time      1300 ms, first byte after 1010 ms, 4 upstream calls",
        "tokens    10 in, 5 out (reported)",
        "cost      0.00125 USD (reported), service tier flex",
        "plan (weighted):",
        "  1. openrouter/x  weight 3  [z-ai/glm-4.6]",
        "  2. azure/y  fallback: fallback of m  [gpt-y]",
        "  -  groq/z  dropped: no vision  [z]",
        "  1. openrouter/x  429 (http_429), 0.210 s, after 0.250 s in the queue, 3 calls",
        "  2. azure/y  200, 0.800 s, 0.00125 USD",
    ):
        assert line in shown.stdout.splitlines()


def test_a_request_is_explained_to_machines_as_over_http(sqlite_url: str) -> None:
    asyncio.run(store(sqlite_url, (row("mine"), FALLEN_BACK)))
    told = json.loads(explain(sqlite_url, "mine", "--json").stdout)
    assert faults(told) == []
    assert told["trace"]["attempts"][0]["status"] == 429


def test_without_a_trace_the_setting_is_named(sqlite_url: str) -> None:
    failed = row("mine", status=RequestStatus.REFUSED, error_type="invalid_request", cost_source=CostSource.NONE)
    asyncio.run(store(sqlite_url, (failed, None)))
    shown = explain(sqlite_url, "mine").stdout
    assert "LLMGATEWAY_TRACES=notable" in shown
    assert "outcome   refused (invalid_request)" in shown
    assert "cost      none" in shown


def test_other_rows_of_the_request_are_named(sqlite_url: str) -> None:
    rows = [row("twice"), row("twice")]
    asyncio.run(store(sqlite_url, *((each, None) for each in rows)))
    shown = explain(sqlite_url, str(rows[0].id)).stdout
    assert f"row       {rows[0].id}" in shown
    assert f"  {rows[1].id}" in shown


def test_a_name_cannot_move_the_cursor(sqlite_url: str) -> None:
    trace = RequestTrace(
        attempts=(TracedAttempt("a\x1b[2J", "m", error="timeout", is_hedge=True), FALLEN_BACK.attempts[0])
    )
    asyncio.run(
        store(sqlite_url, (RequestLog(model=ModelName("m\x1b[2J\n"), provider_name="p", request_id="mine"), trace))
    )
    shown = explain(sqlite_url, "mine")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "-> m\ufffd[2J\ufffd at p" in shown.stdout
    assert "timeout" in shown.stdout
    assert "a hedge" in shown.stdout


def test_a_request_that_is_not_booked_is_an_error(sqlite_url: str) -> None:
    shown = explain(sqlite_url, "nobody's")
    assert shown.exit_code == 1
    assert "No request nobody's is booked" in shown.stderr


@pytest.mark.parametrize("wrong", [{"LLMGATEWAY_TRACES": "some"}, {"TRACE_RETENTION_DAYS": "-1"}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    shown = CliRunner(env=wrong).invoke(main, ["check-config"])
    assert shown.exit_code == 1
    assert next(iter(wrong)) in shown.stderr
