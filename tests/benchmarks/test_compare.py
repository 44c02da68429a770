"""The comparison with other gateways, as small as it can be, with real processes: so that it cannot rot."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare.__main__ import arguments, plan_of
from benchmarks.compare.answers import Kind, is_right, plain_answer, stream_events
from benchmarks.compare.client import Address, Answer, Crowd
from benchmarks.compare.measuring import Plan, Result
from benchmarks.compare.report import ratio
from benchmarks.compare.targets import ROOT

_SMALL = "--quick --seconds 0.1 --warm-seconds 0 --settle-seconds 0.05 --turns 5 --soak-seconds 0.1"


async def _compare(targets: str, file: Path) -> tuple[int, str, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.compare", "--targets", targets, "--json", str(file), *_SMALL.split()),
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(), json.loads(file.read_text())


async def test_a_gateway_beside_a_bare_relay(tmp_path: Path) -> None:
    """Both are measured in everything, answer rightly, and the one that keeps books has a row for each answer."""
    code, said, report = await _compare("aiohttp-bare,llmgateway", tmp_path / "report.json")
    assert code == 0, said
    assert set(report["results"]) == {"aiohttp-bare", "llmgateway"}
    for name, result in report["results"].items():
        assert (result["wrong"], result["complaints"]) == (0, [])
        for figure in ("cold_start_seconds", "idle_megabytes", *(f"{kind}_per_second" for kind in Kind)):
            assert result["samples"][figure][0] > 0, figure
        assert f"| {name} |" in said
    assert report["results"]["llmgateway"]["rows"] == report["results"]["llmgateway"]["answered"] > 20
    assert report["results"]["aiohttp-bare"]["rows"] is None
    assert "llmgateway as a multiple of each" in said


def _on_the_wire(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("pieces", [1, 7])
def test_answers_are_read_in_whatever_pieces_they_come(pieces: int) -> None:
    events = stream_events(3)
    wire, answer = _on_the_wire(b"".join(events)), Answer()
    cuts = [len(wire) * piece // pieces for piece in range(pieces + 1)]
    whole = [answer.feed(wire[a:b]) for a, b in pairwise(cuts)]
    assert whole == [False] * (pieces - 1) + [True]
    assert answer.is_right(Kind.BURST)


def test_a_wrong_answer_is_noticed() -> None:
    events = stream_events(1)
    assert is_right(Kind.PACED, 200, b"".join(events))
    assert not is_right(Kind.PACED, 200, b"".join(events[:-1]))
    assert not is_right(Kind.PACED, 200, b"".join([events[1], events[0], *events[2:]]))
    assert not is_right(Kind.PACED, 200, b"".join(events[:5] + events[6:]))
    assert is_right(Kind.PLAIN, 200, plain_answer(1))
    assert not is_right(Kind.PLAIN, 500, plain_answer(1))
    assert not is_right(Kind.PLAIN, 200, b'{"usage": {}}')


def test_ratios_are_of_rounds_not_of_medians() -> None:
    one = Result("1", "", {"plain_cpu_ms": [2.0, 20.0, 3.0]})
    other = Result("1", "", {"plain_cpu_ms": [1.0, 10.0, 3.0]})
    assert ratio(one, other, "plain_cpu_ms") == 2.0
    assert math.isnan(ratio(one, other, "burst_cpu_ms"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, value) for option in ("rounds", "turns", "starts", "soak-requests") for value in ("0", "-1", "1.5")),
        *((f"{which}seconds", value) for which in ("", "warm-", "soak-") for value in ("-0.1", "nan", "inf")),
    ],
)
def test_numbers_that_make_no_sense_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments([f"--{option}={value}"])
    assert ended.value.code == 2
    assert f"error: argument --{option}: " in capsys.readouterr().err


def test_no_seconds_and_one_of_each_are_taken() -> None:
    chosen = arguments(["--rounds=1", "--starts=1", "--soak-seconds=0", "--soak-requests=1"])
    assert plan_of(chosen) == Plan(rounds=1, starts=1, soak_seconds=0, soak_requests=1)


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_a_crowd_of_more_connections_than_requests_ends(requests: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(_on_the_wire(plain_answer(1)))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        crowd = Crowd(Address(f"http://127.0.0.1:{port}/v1/chat/completions"), Kind.PLAIN, 5.0, requests)
        outcome = await asyncio.wait_for(crowd.run(4), 10)
    assert (len(outcome.took_seconds), outcome.wrong) == (requests, 0)
