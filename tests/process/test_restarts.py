"""Starts that have the process id of an earlier one, as all of a container's have: nothing of it is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.process.conftest import Serving, serving
from tests.process.test_reloads import CONFIG
from tests.telemetry.scraping import Scrape

WORKERS = 2
LEAVING_FILES = """
import json, os, sys
from pathlib import Path

data, pid = Path(os.environ["LLMGATEWAY_DATA_DIR"]), str(os.getpid())
workers, metrics = data / "workers" / pid, data / "metrics" / pid
workers.mkdir(parents=True)
metrics.mkdir(parents=True)
(workers / "drained.json").write_text(json.dumps({"local/test/model": True}))
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
from prometheus_client import Gauge

for name, labels in {"deployment_drained": ["provider", "deployment"], "provider_up": ["provider"]}.items():
    gauge = Gauge(f"llmgateway_{name}", "Left behind.", labels, multiprocess_mode="livemax")
    gauge.labels(*["gone"] * len(labels)).set(1)
del os.environ["PROMETHEUS_MULTIPROC_DIR"]
os.execv(sys.executable, [sys.executable, "-m", "proxy", "serve", "--workers", sys.argv[1]])
"""


def told_by_all(gateway: Serving) -> dict[str, Any]:
    """The health report, once each worker has read what it is told, and told of itself."""
    deadline = time.monotonic() + 20
    while True:
        report: dict[str, Any] = httpx.get(f"{gateway.url}/health").json()
        if len(report.get("workers", ())) == WORKERS:
            return report
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_holds_until_a_restart_does_not_outlive_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    command = (sys.executable, "-c", LEAVING_FILES, str(WORKERS))
    with serving(tmp_path, *command, LLMGATEWAY_CONFIG="gateway.yaml") as gateway:
        report = told_by_all(gateway)
        assert {name: state["drained"] for name, state in report["deployments"].items()} == {"local/test/model": False}
        page = Scrape(httpx.get(f"{gateway.url}/metrics").raise_for_status().text)
        assert "gone" not in page.label_values("provider")
        assert page.value("llmgateway_ready") == 1
        assert gateway.stop() == 0
