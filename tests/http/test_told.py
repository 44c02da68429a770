"""What is told of bad requests, and how long the limits are by default."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from proxy.domain.errors import MalformedHttp
from proxy.server.bad_requests import BadRequests, RefusalAnswer
from proxy.server.site import timeouts_of
from proxy.settings import Settings
from tests.gateway.raw_http import connected
from tests.harness import TestGateway

SETTINGS: dict[str, Any] = {}
BAD = b"GET /\x1b[31mFORGED\n HTTP/1.1\r\nHost: sk-secret\r\n\r\n"


async def test_the_log_has_one_line_for_many_bad_requests_and_nothing_that_they_sent(
    gateway: TestGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = []
    for _ in range(40):
        async with connected(gateway.url) as connection:
            await connection.send(BAD)
            answers.append(await connection.answer())
    async with asyncio.timeout(20):
        while not (told := [record for record in caplog.records if record.name == "proxy.server.bad_requests"]):
            await asyncio.sleep(0.05)
    assert len(told) <= 3  # one for each sweep
    assert told[0].__dict__["reasons"].keys() == {"request_line"}
    example = told[0].__dict__["examples"][0]
    assert example["request_id"] in {answer.headers["x-request-id"] for answer in answers}
    assert example["peer"] == "127.0.0.1"
    everything = "".join(str(record.__dict__) for record in caplog.records) + repr(answers)
    assert "FORGED" not in everything
    assert "sk-secret" not in everything
    assert "Traceback" not in everything


def test_counts_and_some_examples_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    bad = BadRequests()
    for number in range(1000):
        bad.note(RefusalAnswer(MalformedHttp("no", "host" if number % 2 else "version")), f"10.0.0.{number}")
    bad.tell()
    bad.tell()
    (record,) = caplog.records
    assert (record.__dict__["count"], record.__dict__["reasons"]) == (1000, {"host": 500, "version": 500})
    assert [example["peer"] for example in record.__dict__["examples"]] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


def test_every_stalled_form_ends_within_35_seconds_by_default() -> None:
    """A sweep finds a limit that has passed; it also finds late that a body has begun."""
    timeouts = timeouts_of(Settings(**SETTINGS))
    assert timeouts.head_seconds + timeouts.sweep_seconds <= 35
    assert timeouts.body_seconds + 2 * timeouts.sweep_seconds <= 35
    assert timeouts.keepalive_seconds > 60  # what load balancers keep idle
