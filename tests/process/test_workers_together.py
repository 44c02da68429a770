"""Two workers that serve one port: what one of them is told holds for both."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest

from tests.harness import COMPLETION
from tests.process.conftest import Serving, serving
from tests.telemetry.scraping import Scrape

MASTER = "sk-administrator"
ASKED: list[str] = []
AS_ADMIN = {"Authorization": f"Bearer {MASTER}"}
FILE = "providers:\n  up: {kind: openai, base_url: 'http://127.0.0.1:%d/v1'}\nmodels:\n"
MODEL = "  %s:\n    deployments: [{provider: up, model: m}]\n"


class Upstream(BaseHTTPRequestHandler):
    """Answers each call with its number, once `gate` is open."""

    protocol_version = "HTTP/1.1"
    calls: ClassVar[list[int]] = []
    gate: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append(len(self.calls))
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = json.dumps({**COMPLETION, "id": f"gen-{len(self.calls)}", "usage": usage}).encode()
        self.gate.wait(30)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """Its port."""
    Upstream.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("pair")
    (directory / "gateway.yaml").write_text(FILE % upstream + MODEL % "first")
    command = (sys.executable, "-m", "proxy", "serve", "--workers", "2")
    settings = {"LLMGATEWAY_MASTER_KEY": MASTER, "LLMGATEWAY_MASTER_KEY_CALLS_MODELS": "true"}
    with serving(directory, *command, **settings, LLMGATEWAY_CONFIG="gateway.yaml") as gateway:
        until(lambda: len(httpx.get(f"{gateway.url}/health").json().get("workers", ())) == 2)
        ASKED.clear()  # of another pair: tests that run side by side may come back to this file
        yield gateway


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def admin(gateway: Serving, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer = httpx.request(method, f"{gateway.url}/admin/{path}", headers=AS_ADMIN, json=body, timeout=30)
    return answer.status_code, answer.json()


def reloads(gateway: Serving) -> list[dict[str, Any]]:
    status, page = admin(gateway, "GET", "audit?action=reload")
    assert status == 200
    found: list[dict[str, Any]] = page["data"]
    return found


def test_a_reload_reaches_both_and_both_say_so(pair: Serving) -> None:
    status, answer = admin(pair, "POST", "config/reload")
    assert status == 200
    assert [(each["took_it"], each["version"], each["problems"]) for each in answer["workers"]] == [
        (True, answer["version"], []),
        (True, answer["version"], []),
    ]
    assert len({each["pid"] for each in answer["workers"]}) == 2
    assert reloads(pair)[0]["actor"].startswith("master")


def test_a_changed_file_is_one_entry_in_the_audit_log(pair: Serving) -> None:
    before = len(reloads(pair))
    path = Path(pair.environment["LLMGATEWAY_DATA_DIR"]).parent / "gateway.yaml"
    path.write_text(path.read_text() + MODEL % "second")
    until(lambda: len(reloads(pair)) > before)
    time.sleep(2.5)  # the other one looks each second
    entry, *rest = reloads(pair)
    assert len(rest) == before
    assert (entry["actor"], entry["action"], entry["object_kind"]) == ("file (gateway.yaml)", "reload", "configuration")
    assert entry["before"]["version"] != entry["after"]["version"]


def ask(gateway: Serving, key: str, model: str = "first") -> str:
    """The answer's id, and whether it is that of an earlier request; over a connection of its own."""
    ASKED.append(key)
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers={**AS_ADMIN, "Idempotency-Key": key}, timeout=30
    )
    return f"{answer.status_code} {answer.json().get('id')} {answer.headers.get('idempotent-replayed', 'first')}"


def workers_of(gateway: Serving) -> set[int]:
    return {child.pid for child in psutil.Process(gateway.process.pid).children()}


@contextmanager
def only(pid: int, gateway: Serving) -> Iterator[None]:
    """The other worker takes no connections: left to the kernel, one may take all of them."""
    others = workers_of(gateway) - {pid}
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def health(gateway: Serving, pid: int) -> dict[str, Any]:
    """What this worker says of them all."""
    with only(pid, gateway):
        report: dict[str, Any] = httpx.get(f"{gateway.url}/health", timeout=30).json()
    return report


def kill_both(gateway: Serving) -> None:
    before = workers_of(gateway)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers_of(gateway) - before) == 2)


def test_one_key_is_one_call_whichever_worker_is_asked(pair: Serving) -> None:
    Upstream.calls.clear()
    Upstream.gate.clear()
    with ThreadPoolExecutor(16) as clients:
        asked = [clients.submit(ask, pair, "k1") for _ in range(16)]
        until(lambda: bool(Upstream.calls))
        time.sleep(0.3)
        Upstream.gate.set()
        got = sorted(each.result() for each in asked)
    assert got == ["200 gen-1 first"] + ["200 gen-1 true"] * 15
    for pid in workers_of(pair):
        with only(pid, pair):
            assert ask(pair, "k1") == "200 gen-1 true"
    assert len(Upstream.calls) == 1


def test_whichever_worker_is_asked_tells_of_both(pair: Serving) -> None:
    workers = sorted(workers_of(pair))
    reports: list[dict[str, Any]] = []

    def both_tell_of(in_flight: int) -> bool:
        reports[:] = (health(pair, pid) for pid in workers)
        taken = [sum(each["in_flight"] for each in report["deployments"].values()) for report in reports]
        booked = {report["ledger"]["booked_rows"] for report in reports}
        waiting = [report["ledger"]["waiting_rows"] for report in reports]
        return [report["load"]["in_flight"] for report in reports] == taken == [in_flight] * 2 and (
            in_flight > 0 or (len(booked) == 1 and waiting == [0, 0])
        )

    Upstream.calls.clear()
    Upstream.gate.clear()
    with ThreadPoolExecutor(3) as clients:
        try:
            for number, pid in enumerate((*workers, workers[0])):
                with only(pid, pair):
                    clients.submit(ask, pair, f"both-{number}")
                    until(lambda number=number: len(Upstream.calls) == number + 1)  # type: ignore[misc]
            until(lambda: both_tell_of(3))
        finally:
            Upstream.gate.set()
    until(lambda: both_tell_of(0))
    report = reports[0]
    parts = report["workers"]
    assert [each["pid"] for each in parts] == workers
    assert report["ledger"]["booked_rows"] == sum(each["ledger"]["booked_rows"] for each in parts) >= 3
    assert report["load"]["most_in_flight"] == sum(each["load"]["most_in_flight"] for each in parts)
    assert {each["configuration"]["version"] for each in parts} == {report["configuration"]["version"]}
    assert report["deployments"]["up/m"]["success_rate"] == 1
    assert "recent_calls" not in json.dumps(report)


def counted(gateway: Serving) -> float:
    page = httpx.get(f"{gateway.url}/metrics", headers=AS_ADMIN, timeout=30).raise_for_status()
    return Scrape(page.text).value("llmgateway_requests_total")


def test_metrics_of_both_add_up_to_what_was_sent(pair: Serving) -> None:
    for pid in workers_of(pair):
        with only(pid, pair), ThreadPoolExecutor(8) as clients:
            got = list(clients.map(lambda number, pid=pid: ask(pair, f"{pid}-{number}"), range(30)))
        assert all(each.startswith("200 ") for each in got)
    until(lambda: counted(pair) >= len(ASKED))  # each counts once a second
    time.sleep(1.2)
    assert {counted(pair) for _ in range(6)} == {len(ASKED)}  # whichever worker tells


def test_a_budget_is_never_overspent_whichever_worker_is_asked(pair: Serving) -> None:
    path = Path(pair.environment["LLMGATEWAY_DATA_DIR"]).parent / "gateway.yaml"
    fee = "prices: {input_usd_per_1m_tokens: 0, output_usd_per_1m_tokens: 0, request_fee_usd: 0.01}"
    path.write_text(path.read_text() + f"  dear:\n    deployments: [{{provider: up, model: m, {fee}}}]\n")
    assert admin(pair, "POST", "config/reload")[0] == 200  # nothing may be left to change: the file is followed, too
    budget = {"name": "thirty", "scope": "model", "subject": "dear", "amount_usd": "0.30", "period": "total"}
    assert admin(pair, "POST", "budgets", budget)[0] == 201
    until(lambda: "thirty" in str(admin(pair, "GET", "budgets")))
    time.sleep(2.5)  # rules are read every two seconds
    Upstream.calls.clear()
    with ThreadPoolExecutor(30) as clients:
        got = Counter(clients.map(lambda number: ask(pair, f"budget-{number}", "dear")[:3], range(60)))
    while (status := ask(pair, f"rest-{sum(got.values())}", "dear")[:3]) == "200":
        got[status] += 1
    assert (got["200"], len(Upstream.calls), status) == (30, 30, "429")


def test_answers_outlive_workers_that_are_killed_and_calls_that_died_with_them_do_not(pair: Serving) -> None:
    Upstream.calls.clear()
    assert ask(pair, "k2") == "200 gen-1 first"
    Upstream.gate.clear()
    with ThreadPoolExecutor(1) as clients:
        lost = clients.submit(ask, pair, "k3")
        until(lambda: len(Upstream.calls) == 2)
        kill_both(pair)
        with pytest.raises(httpx.TransportError):
            lost.result()
    Upstream.gate.set()
    assert ask(pair, "k2") == "200 gen-1 true"
    assert ask(pair, "k3") == "200 gen-3 first"


def test_workers_that_end_at_once_are_replaced_after_growing_pauses(pair: Serving) -> None:
    def pauses() -> list[float]:
        told = [json.loads(line) for line in pair.output if "ended soon after its start" in line]
        return [each["pause_seconds"] for each in told]

    answered = ask(pair, "k4")
    assert answered.endswith(" first")
    time.sleep(0.3)  # it is stored a moment after it was given
    before = len(pauses())
    for number in (1, 2):
        os.kill(max(workers_of(pair)), signal.SIGKILL)
        until(lambda number=number: len(pauses()) == before + number)  # type: ignore[misc]
        until(lambda: len(workers_of(pair)) == 2)
    assert pauses()[-1] == 2 * pauses()[-2]
    assert ask(pair, "k4") == answered.replace("first", "true")
