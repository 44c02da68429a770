"""llmgateway usage: the same report as a table, as JSON and as CSV."""

from __future__ import annotations

import asyncio
import csv
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.domain.request_log import CostSource, RequestLog, RequestStatus
from proxy.domain.values import CostAmount, ModelName, TokenCount
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = [
    RequestLog(
        model=ModelName("a/[bold]one"),
        provider_name="p",
        timestamp=NOON,
        input_tokens=TokenCount(3),
        output_tokens=TokenCount(4),
        reported_cost=CostAmount(Decimal("0.000000000001")),
        cost_source=CostSource.REPORTED,
        response_time_ms=12,
        time_to_first_byte_ms=7,
    ),
    RequestLog(
        model=ModelName("b/two"),
        provider_name="p",
        timestamp=NOON,
        estimated_cost=CostAmount(Decimal("0.25")),
        cost_source=CostSource.COMPUTED,
        response_time_ms=5,
    ),
    RequestLog(model=ModelName("b/two"), provider_name="p", timestamp=NOON, status=RequestStatus.UPSTREAM_ERROR),
]


async def _book(url: str) -> None:
    async with open_database(url) as database:
        await PiccoloRequestLogs(database).save_all(ROWS)


@pytest.fixture
def booked_url(sqlite_url: str) -> str:
    asyncio.run(_book(sqlite_url))
    return sqlite_url


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["usage", *arguments], env={"DATABASE_URL": url})


def test_json_is_the_object_of_the_api(booked_url: str) -> None:
    result = run(booked_url, "--by", "model", "--json", "--since", "2026-03-01", "--until", "2026-03-02")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["since"], report["until"]) == ("2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00")
    assert [row["model"] for row in report["data"]] == ["b/two", "a/[bold]one"]
    assert report["total"] == {
        "requests": 3,
        "errors": 1,
        "input_tokens": 3,
        "output_tokens": 4,
        "cost_usd": "0.250000000001",
        "cost_usd_by_source": {"computed": "0.25", "reported": "0.000000000001"},
        "requests_of_unknown_cost": 1,
        "response_time_ms": {"p50": 5, "p95": 12},
        "time_to_first_byte_ms": {"p50": 7, "p95": 7},
    }


def test_csv_has_a_line_for_each_row_with_exact_costs(booked_url: str) -> None:
    result = run(booked_url, "--by", "model", "--csv")
    lines = list(csv.DictReader(result.stdout.splitlines()))
    assert [line["model"] for line in lines] == ["b/two", "a/[bold]one"]
    assert lines[1]["cost_usd_reported"] == "0.000000000001"
    assert lines[1]["cost_usd_computed"] == "0"
    assert lines[1]["time_to_first_byte_ms_p95"] == "7"
    assert lines[0]["time_to_first_byte_ms_p95"] == ""


@pytest.mark.parametrize("since", ["2027-01-01", "9999-12-31T23:59:59Z"])
def test_csv_without_rows_is_its_headings(booked_url: str, since: str) -> None:
    result = run(booked_url, "--by", "day", "--csv", "--since", since)
    assert result.stdout.startswith("day,requests,errors,")
    assert len(result.stdout.splitlines()) == 1


def test_the_table_shows_names_as_they_are_and_what_is_not_known(booked_url: str) -> None:
    shown = run(booked_url, "--by", "model").stdout
    assert "a/[bold]one" in shown
    assert "0.25 + 1 unknown" in shown
    assert "total" in shown


@pytest.mark.parametrize("option", ["key", "team", "organisation"])
def test_an_owner_that_there_is_not_is_told_with_its_option(booked_url: str, option: str) -> None:
    for more in ("--json", "--csv"):
        result = run(booked_url, "--by", "day", f"--{option}", "typo", more)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"--{option}" in result.stderr
        assert f"There is no {option} 'typo'" in result.stderr
        assert f"llmgateway {option}s list" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--by", "colour"], "--by"),
        ([], "--by"),
        (["--by", "day", "--since", "soon"], "--since"),
        (["--by", "day", "--since", "2026-02-02", "--until", "2026-02-01"], "--until"),
        (["--by", "day", "--json", "--csv"], "--csv"),
    ],
)
def test_wrong_arguments_are_named_before_the_database_is_asked(arguments: list[str], named: str) -> None:
    result = run("postgresql://nobody@127.0.0.1:1/none", *arguments)
    assert result.exit_code == 2
    assert named in result.stderr
