"""Two workers that serve one port: what one of them is told holds for both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import Serving, serving

MASTER = "sk-administrator"
AS_ADMIN = {"Authorization": f"Bearer {MASTER}"}
FILE = "providers:\n  demo: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}\nmodels:\n"
MODEL = "  %s:\n    deployments: [{provider: demo, model: m}]\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("pair")
    (directory / "gateway.yaml").write_text(FILE + MODEL % "first")
    command = (sys.executable, "-m", "proxy", "serve", "--workers", "2")
    with serving(directory, *command, LLMGATEWAY_MASTER_KEY=MASTER, LLMGATEWAY_CONFIG="gateway.yaml") as gateway:
        until(lambda: len(httpx.get(f"{gateway.url}/health").json().get("workers", ())) == 2)
        yield gateway


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def admin(gateway: Serving, method: str, path: str) -> tuple[int, Any]:
    answer = httpx.request(method, f"{gateway.url}/admin/{path}", headers=AS_ADMIN, timeout=30)
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
    path.write_text(FILE + MODEL % "first" + MODEL % "second")
    until(lambda: len(reloads(pair)) > before)
    time.sleep(2.5)  # the other one looks each second
    entry, *rest = reloads(pair)
    assert len(rest) == before
    assert (entry["actor"], entry["action"], entry["object_kind"]) == ("file (gateway.yaml)", "reload", "configuration")
    assert entry["before"]["version"] != entry["after"]["version"]
