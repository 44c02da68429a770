"""`llmgateway payload`"""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from proxy.application.payloads import Capture
from proxy.cli import main
from proxy.domain.request_log import RequestLog
from proxy.domain.values import ModelName
from proxy.infrastructure.payloads.preparing import prepare
from proxy.infrastructure.payloads.rows import PayloadRows
from proxy.infrastructure.persistence.database import open_database
from tests.payloads.conftest import capture, row

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def store(url: str, *payloads: tuple[RequestLog, Capture]) -> None:
    async def write() -> None:
        async with open_database(url) as database:
            await PayloadRows(database).write([prepare(row, capture, None) for row, capture in payloads])

    asyncio.run(write())


def payload(url: str, *arguments: str) -> Result:
    return CliRunner(env={"DATABASE_URL": url}).invoke(main, ["payload", *arguments])


def test_a_payload_is_shown(database_url: str) -> None:
    stored = row("mine")
    store(database_url, (stored, capture("Grüße".encode(), b"data: \x1b[2J1\n\n", b"data: 2\n\n", max_bytes=12)))
    for asked in ("mine", str(stored.id)):
        shown = payload(database_url, asked)
        assert shown.exit_code == 0, shown.output
        assert str(stored.id) in shown.stdout
        assert "request (7 bytes):\nGrüße\n" in shown.stdout
        assert (
            "response (the first 12 of 22 bytes, application/json):\ndata: \N{REPLACEMENT CHARACTER}[2J1"
            in shown.stdout
        )
        assert "\x1b" not in shown.stdout


def test_a_payload_is_given_to_machines_as_it_is(database_url: str) -> None:
    stored = row("mine")
    store(database_url, (stored, capture("äöü".encode(), b"\xff\x00", max_bytes=5)))
    assert json.loads(payload(database_url, "mine", "--json").stdout) == {
        "id": str(stored.id),
        "request_id": "mine",
        "timestamp": stored.timestamp.isoformat(),
        "content_type": "application/json",
        "request": {"full_bytes": 6, "truncated": True, "text": "äö"},
        "response": {
            "full_bytes": 2,
            "truncated": False,
            "base64": base64.b64encode(b"\xff\x00").decode(),
        },
    }


def test_the_newest_of_several_is_shown_and_the_others_are_named(sqlite_url: str) -> None:
    newest, older = (
        RequestLog(model=ModelName("m"), provider_name="p", request_id="twice", timestamp=NOW - timedelta(hours=age))
        for age in (0, 1)
    )
    store(sqlite_url, (older, capture(b"old")), (newest, capture(b"new")))
    shown = payload(sqlite_url, "twice", "--json")
    assert json.loads(shown.stdout)["id"] == str(newest.id)
    assert str(older.id) in shown.stderr
    assert json.loads(payload(sqlite_url, str(older.id), "--json").stdout)["request"]["text"] == "old"


def test_a_payload_without_bodies_says_so(sqlite_url: str) -> None:
    store(sqlite_url, (row("empty"), Capture(100)))
    assert "request: none" in payload(sqlite_url, "empty").stdout
    assert json.loads(payload(sqlite_url, "empty", "--json").stdout)["response"] is None


def test_what_is_not_stored_is_an_error_that_says_what_is(sqlite_url: str) -> None:
    shown = payload(sqlite_url, "nobody's")
    assert shown.exit_code == 1
    assert "LLMGATEWAY_STORE_PAYLOADS=off" in shown.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"LLMGATEWAY_STORE_PAYLOADS": "some"},
        {"PAYLOAD_MAX_BYTES": "0"},
        {"PAYLOAD_RETENTION_DAYS": "-1"},
        {"PAYLOAD_REDACTION": "module.function"},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, str]) -> None:
    shown = CliRunner(env=wrong).invoke(main, ["check-config"])
    assert shown.exit_code == 1
    assert next(iter(wrong)) in shown.stderr
