"""Names that clients chose: what reaches the operator's terminal and spreadsheet of them."""

from __future__ import annotations

import asyncio
import csv

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.plain import csv_cell
from proxy.domain.request_log import RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.persistence.database import open_database
from proxy.infrastructure.persistence.request_logs import PiccoloRequestLogs
from tests.harness import TestGateway, Upstream

RED = "chat\x1b[31mX"
SHOWN = "chat\N{REPLACEMENT CHARACTER}[31mX"
FORMULA = '=HYPERLINK("http://evil.example")'


async def _book(url: str) -> None:
    rows = [RequestLog(model=ModelName(name), provider_name="p", requested_model=name) for name in (RED, FORMULA)]
    async with open_database(url) as database:
        await PiccoloRequestLogs(database).save_all(rows)


def shown(url: str, *arguments: str) -> str:
    """What a command writes, in which there is no escape."""
    done = CliRunner().invoke(main, arguments, env={"DATABASE_URL": url})
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    return done.stdout


def test_a_booked_name_cannot_change_the_terminal(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    for command in (("logs",), ("usage", "--by", "model"), ("usage", "--by", "model", "--csv")):
        assert SHOWN in shown(sqlite_url, *command)


def test_letters_that_a_terminal_does_not_have_are_escaped(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    for command in (("logs",), ("usage", "--by", "model"), ("usage", "--by", "model", "--csv")):
        done = CliRunner(charset="latin-1").invoke(main, command, env={"DATABASE_URL": sqlite_url})
        assert done.exit_code == 0, done.exception
        assert r"chat\ufffd[31mX" in done.stdout


def test_a_booked_name_is_no_formula_in_a_spreadsheet(sqlite_url: str) -> None:
    asyncio.run(_book(sqlite_url))
    lines = csv.DictReader(shown(sqlite_url, "usage", "--by", "model", "--csv").splitlines())
    assert {line["model"] for line in lines} == {SHOWN, f"'{FORMULA}"}


@pytest.mark.parametrize("text", ["=1+1", "+x", "-2+3", "@SUM(A1)", "-", "-Infinity"])
def test_what_a_spreadsheet_would_compute_begins_with_an_apostrophe(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-1", "+0.25", "-1.5e-7", "a=b", "", None, 7])
def test_numbers_and_other_text_stay(value: object) -> None:
    assert csv_cell(value) == value


def test_a_price_cannot_change_the_terminal(sqlite_url: str) -> None:
    assert SHOWN in shown(sqlite_url, "prices", "set", RED, "--input", "1", "--output", "2")
    assert SHOWN in shown(sqlite_url, "prices", "list")
    assert SHOWN in shown(sqlite_url, "audit")


async def test_a_gateways_names_cannot_change_the_terminal(gateway: TestGateway, upstream: Upstream) -> None:
    upstream.models = [{"id": RED}]
    for command in (("models",), ("route", "--model", RED)):
        done = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--url", str(gateway.url)])
        assert "\x1b" not in done.output
        assert SHOWN in done.output
