"""The `llmgateway` command."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__
from tests.process.conftest import Serving, clean_environment, serving

HELLO = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}


def post(url: str, body: Any, **headers: str) -> Any:
    request = urllib.request.Request(  # noqa: S310  # a loopback URL
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments],
        env=clean_environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version_and_help_are_quick_because_they_load_nothing_heavy() -> None:
    assert run("--version").stdout == f"llmgateway, version {__version__}\n"
    for command in ("serve", "migrate", "check-config", "logs", "models", "health"):
        shown = run(command, "--help")
        assert shown.returncode == 0
        assert "Usage:" in shown.stdout
    heavy = run_python("import sys, proxy.cli; print([m for m in sys.modules if m in ('semantic_kernel', 'piccolo')])")
    assert heavy.strip() == "[]"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_data_directory_is_its_owners_alone(tmp_path: Path, postgres_url: str, workers: str) -> None:
    """Whoever makes it first: the database is elsewhere."""
    with serving(tmp_path, LLMGATEWAY_WORKERS=workers, DATABASE_URL=postgres_url):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_requests_are_shown_once_each_with_tokens_and_cost(tmp_path: Path) -> None:
    with serving(tmp_path) as gateway:
        for number in range(3):
            post(gateway.url, HELLO, x_request_id=f"mine-{number}")
        assert gateway.stop() == 0
        shown = json.loads(gateway.command("logs", "--json").stdout)
        assert [row["request_id"] for row in shown["rows"]] == ["mine-2", "mine-1", "mine-0"]
        assert all(row["output_tokens"] > 0 and float(row["reported_cost_usd"]) > 0 for row in shown["rows"])
        assert shown["totals"]["requests"] == 3
        assert shown["totals"]["output_tokens"] == sum(row["output_tokens"] for row in shown["rows"])
        table = gateway.command("logs", "--limit", "2").stdout
        for whole in ("mine-2", "z-ai/glm-4.6", "success", shown["rows"][0]["reported_cost_usd"]):
            assert whole in table
        assert "mine-0" not in table
        assert "2 requests" in table
    assert "Traceback" not in "".join(gateway.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_after_running_requests(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, SHUTDOWN_GRACE_SECONDS="20") as gateway:
        slow = subprocess.Popen([sys.executable, "-c", _SLOW_REQUEST, gateway.url], stdout=subprocess.PIPE, text=True)
        assert slow.stdout is not None
        assert slow.stdout.readline() == "sent\n"
        time.sleep(0.3)  # the request must be under way
        assert gateway.stop(number) == 0
        answer, _ = slow.communicate(timeout=20)
        assert "demo/slow" in answer
        shown = json.loads(gateway.command("logs", "--json").stdout)
        assert [row["status"] for row in shown["rows"]] == ["success"]


_SLOW_REQUEST = """
import json, sys, urllib.request
body = {"model": "demo/slow", "messages": [{"role": "user", "content": "Hello"}]}
url, headers = sys.argv[1] + "/v1/chat/completions", {"Content-Type": "application/json"}
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
print("sent", flush=True)
print(urllib.request.urlopen(request, timeout=30).read().decode())
"""


def test_balancers_are_given_time_to_see_that_it_is_leaving(tmp_path: Path) -> None:
    with serving(tmp_path, SHUTDOWN_DELAY_SECONDS="60") as gateway:
        address = gateway.url.removeprefix("http://")
        kept = http.client.HTTPConnection(address, timeout=20)
        assert answer_on(kept, "GET", "/health/ready") == (200, None)
        gateway.process.send_signal(signal.SIGTERM)
        probe = http.client.HTTPConnection(address, timeout=20)
        deadline = time.monotonic() + 20
        while answer_on(probe, "GET", "/health/ready") != (503, "close"):
            assert time.monotonic() < deadline
        assert answer_on(probe, "POST", "/v1/chat/completions") == (200, "close")
        assert answer_on(kept, "POST", "/v1/chat/completions") == (200, "close")
        assert gateway.stop() == 0  # a second signal: nobody need wait for the delay
        assert json.loads(gateway.command("logs", "--json").stdout)["totals"]["requests"] == 2


def answer_on(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, str | None]:
    """Status, and what the answer says of the connection."""
    body = json.dumps(HELLO) if method == "POST" else None
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("Connection")


def test_a_second_start_keeps_the_rows(tmp_path: Path) -> None:
    for expected in (1, 2):
        with serving(tmp_path) as gateway:
            post(gateway.url, HELLO)
            assert gateway.stop() == 0
            assert json.loads(gateway.command("logs", "--json").stdout)["totals"]["requests"] == expected


def test_postgres_swaps_the_database_and_nothing_else(tmp_path: Path, empty_postgres_url: str) -> None:
    with serving(tmp_path, DATABASE_URL=empty_postgres_url) as gateway:
        post(gateway.url, HELLO)
        assert gateway.stop() == 0
        assert json.loads(gateway.command("logs", "--json").stdout)["totals"]["requests"] == 1
        assert "PostgreSQL" in "".join(gateway.output)
    assert not list(tmp_path.rglob("*.db"))


def test_health_and_models_ask_the_running_gateway(demo: Serving) -> None:
    health = demo.command("health")
    assert health.returncode == 0
    assert "circuit breaker closed" in health.stdout
    assert json.loads(demo.command("health", "--json").stdout)["status"] == "ok"
    models = demo.command("models").stdout
    assert "z-ai/glm-4.6" in models
    assert "128000" in models
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unanswered = run("health", LLMGATEWAY_PORT=str(free.getsockname()[1]))
    assert unanswered.returncode == 1
    assert "Is `llmgateway serve` running?" in unanswered.stderr


def test_a_port_that_is_taken_is_said_so(demo: Serving, tmp_path: Path) -> None:
    port = demo.url.rpartition(":")[2]
    refused = run("serve", "--port", port, LLMGATEWAY_DATA_DIR=str(tmp_path))
    assert refused.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_listening_beyond_loopback_needs_a_key() -> None:
    refused = run("serve", "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "LLMGATEWAY_MASTER_KEY" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_with_a_key_it_listens_anywhere_and_its_own_commands_use_the_key(tmp_path: Path) -> None:
    settings = {"LLMGATEWAY_MASTER_KEY": "sk-master", "LLMGATEWAY_MASTER_KEY_CALLS_MODELS": "true"}
    with serving(tmp_path, LLMGATEWAY_HOST="0.0.0.0", **settings) as gateway:
        port = gateway.url.rpartition(":")[2]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(f"http://127.0.0.1:{port}", HELLO)
        post(f"http://127.0.0.1:{port}", HELLO, Authorization="Bearer sk-master")
        assert "z-ai/glm-4.6" in gateway.command("models").stdout
        assert gateway.stop() == 0
        assert "sk-master" not in "".join(gateway.output)


def test_a_database_that_is_not_there_is_said_so() -> None:
    for command in ("migrate", "logs"):
        refused = run(command, DATABASE_URL="postgresql://me:s3cret@127.0.0.1:1/none")
        assert refused.returncode == 1, refused
        assert "database is not available" in refused.stderr
        assert "s3cret" not in refused.stderr + refused.stdout
        assert "Traceback" not in refused.stderr


def test_a_server_that_is_not_there_is_served_without(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": "postgresql://me:s3cret@127.0.0.1:1/none", "LLMGATEWAY_REQUIRE_KEYS": "never"}
    with serving(tmp_path, **settings) as gateway:
        post(gateway.url, HELLO)
        assert gateway.stop() == 0
        output = "".join(gateway.output)
        assert "cannot be reached" in output
        assert "rows left in the spool" in output
        assert "s3cret" not in output
        assert "Traceback" not in output


def test_a_database_that_is_missing_on_its_server_ends_the_start(postgres_server: str) -> None:
    refused = run("serve", LLMGATEWAY_PORT="0", DATABASE_URL=postgres_server.replace("/postgres?", "/nowhere?"))
    assert refused.returncode == 1, refused
    assert 'database "nowhere" does not exist' in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_variables_that_nothing_reads_are_told_once_and_without_their_values(tmp_path: Path, workers: str) -> None:
    typos = {"LLMGATEWAY_PROT": "s3cret-1", "OVERLOAD_LAG_SECOND": "s3cret-2", "LLMGATEWAY_FOO": "s3cret-3"}
    settings = {"LLMGATEWAY_WORKERS": workers, "LLMGATEWAY_LOG_FORMAT": "json"}
    with serving(tmp_path, **settings, **typos) as gateway:
        assert gateway.stop() == 0
    lines = [json.loads(line) for line in gateway.output if "no setting" in line]
    assert {line["level"] for line in lines} == {"warning"}
    assert [(line["variable"], line.get("did_you_mean")) for line in lines] == [
        ("LLMGATEWAY_FOO", None),
        ("LLMGATEWAY_PROT", "LLMGATEWAY_PORT"),
        ("OVERLOAD_LAG_SECOND", "OVERLOAD_LAG_SECONDS"),
    ]
    assert "s3cret" not in "".join(gateway.output)


def test_check_config_shows_settings_and_masks_secrets() -> None:
    shown = run("check-config", OPENROUTER_API_KEY="sk-or-secret", RETRY_MAX_RETRIES="1", LLMGATEWAY_PROT="1")
    assert shown.returncode == 0
    assert "sk-or-secret" not in shown.stdout
    assert "did you mean LLMGATEWAY_PORT?" in shown.stderr
    line = next(line for line in shown.stdout.splitlines() if line.startswith("RETRY_MAX_RETRIES"))
    assert line.split()[1:3] == ["1", "environment"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("RETRY_MAX_RETRIES", "many"),
        ("LLMGATEWAY_PORT", "70000"),
        ("OPENROUTER_BASE_URL", "openrouter.ai"),
        ("LLMGATEWAY_LOG_LEVEL", "LOUD"),
        ("OPENROUTER_TIMEOUT_SECONDS", "0"),
        ("DATABASE_URL", "mysql://me:s3cret@x/y"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: str) -> None:
    refused = run("check-config", **{setting: value})
    assert refused.returncode == 1
    assert setting in refused.stderr
    assert "s3cret" not in refused.stderr
    assert "Traceback" not in refused.stderr
