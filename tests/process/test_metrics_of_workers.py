"""Several processes that count in one directory, as workers do: each tells what all have done."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tests.process.conftest import Serving, free_port, serving
from tests.telemetry.scraping import Scrape

QUESTION = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}
CONFIG = """
providers:
  one: {kind: openai, base_url: "http://127.0.0.1:9/v1/"}
models:
  first: {deployments: [{provider: one, model: m}]}
"""
WITH_TWO = """
providers:
  one: {kind: openai, base_url: "http://127.0.0.1:9/v1/"}
  two: {kind: openai, base_url: "http://127.0.0.1:9/v1/"}
models:
  first: {deployments: [{provider: one, model: m}, {provider: two, model: m}]}
"""
LABELLED = ("llmgateway_provider_up", "llmgateway_breaker_state", "llmgateway_deployment_drained")


def scraped(url: str) -> Scrape:
    return Scrape(httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text)


def left_behind(directory: Path) -> Scrape:
    """What those that have ended counted there."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return Scrape(generate_latest(registry).decode())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_one_tells_the_sums_of_all(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    port = free_port()
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"), "LLMGATEWAY_REQUIRE_KEYS": "never"}
    with ExitStack() as stack:
        first = stack.enter_context(serving(tmp_path, LLMGATEWAY_METRICS_PORT=str(port), **shared))
        second = stack.enter_context(serving(tmp_path, **shared))
        for url in (first.url, first.url, second.url):
            httpx.post(f"{url}/v1/chat/completions", json=QUESTION, timeout=30).raise_for_status()
        own = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while scraped(own).value("llmgateway_requests_total") < 3 and time.monotonic() < deadline:
            time.sleep(0.2)  # the other one counts once a second
        page = scraped(own)
        assert page.value("llmgateway_requests_total", outcome="success") == 3
        assert page.value("llmgateway_overhead_seconds_count") == 3
        assert page.value("llmgateway_overhead_seconds_bucket", le="+Inf") == 3
        assert page.value("llmgateway_database_up") == 1
        assert page.value("llmgateway_requests_in_flight") == 0
        assert page.value("process_resident_memory_bytes") > 100_000_000
        assert page.value("process_cpu_seconds_total") > 1
        assert not page.label_values("pid")

        paths = ("/health/live", "/health", "/v1/models", "/admin/keys")
        statuses = {path: httpx.get(f"{own}{path}", timeout=30).status_code for path in paths}
        assert statuses == {"/health/live": 200, "/health": 404, "/v1/models": 404, "/admin/keys": 403}

        second.process.kill()
        second.process.wait()
        alone = scraped(own)
        assert alone.value("llmgateway_requests_total", outcome="success") == 3
        assert (
            alone.value("llmgateway_requests_in_flight_limit") == page.value("llmgateway_requests_in_flight_limit") / 2
        )
        assert first.stop() == 0
        assert not list((tmp_path / "metrics").glob("gauge_live*"))


def test_what_is_gone_from_the_configuration_is_told_as_long_as_one_has_it(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    files = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"), "LLMGATEWAY_REQUIRE_KEYS": "never"}
    with ExitStack() as stack:
        for each in files:
            each.write_text(WITH_TWO)
        first, second = (
            stack.enter_context(serving(tmp_path, LLMGATEWAY_CONFIG=str(each), **shared)) for each in files
        )

        def values(provider: str) -> dict[str, float]:
            page = scraped(first.url)
            return {each.name: each.value for name in LABELLED for each in page.of(name, provider=provider)}

        def tells_of(provider: str, *gateways: Serving) -> list[bool]:
            return [provider in httpx.get(f"{each.url}/health").json()["providers"] for each in gateways]

        known = dict.fromkeys(LABELLED, 0.0)
        until(lambda: values("two") == known)
        files[1].write_text(CONFIG)
        until(lambda: tells_of("two", first, second) == [True, False])
        time.sleep(1.5)  # each writes what it sees once a second
        assert values("two") == known
        files[0].write_text(CONFIG)
        until(lambda: tells_of("two", first, second) == [False, False])
        assert values("two") == {}
        assert values("one") == known


def test_who_ends_has_counted_all_that_it_booked(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    with serving(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(directory), LLMGATEWAY_REQUIRE_KEYS="never") as gateway:
        for _ in range(20):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=QUESTION, timeout=30).raise_for_status()
        assert gateway.stop() == 0
    page = left_behind(directory)
    assert page.value("llmgateway_requests_total") == 20
    assert page.value("llmgateway_ledger_booked_rows_total") == 20
