"""The dashboard and the alerts ask for metrics and labels that there are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from tests.telemetry.exposed import exposed_metrics
from tests.telemetry.promql import NotPromql, named_in

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "llmgateway.json").read_text())
ALERTS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ADDED_BY_PROMETHEUS = {"job", "instance"}
ROWS = ["Traffic", "Errors", "Latency", "Tokens and cost", "Providers", "Overload", "Ledger", "Limits and budgets"]
VARIABLES = {"datasource", "job", "model"}


def series() -> dict[str, frozenset[str]]:
    """The labels of each series by its name as PromQL has it."""
    found = {"up": frozenset[str]()}
    for name, labels in exposed_metrics().items():
        found[name] = labels
        found |= {f"{name}_count": labels, f"{name}_sum": labels, f"{name}_bucket": labels | {"le"}}
    for family in ProcessCollector(registry=CollectorRegistry()).collect():
        found |= {sample.name: frozenset[str]() for sample in family.samples}
    return found


SERIES = series()


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where it stands, the expression, and the text that is made of its labels."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metric = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
            assert metric is not None
            yield variable["name"], f"sum by ({metric[2]}) ({metric[1]})", ""
    for alert in ALERTS:
        texts = " ".join(alert["annotations"].values())
        yield alert["alert"], alert["expr"], re.sub(r"\{\{ \$labels\.(\w+)", r"{{\1}}", texts)


@pytest.mark.parametrize(("where", "expression", "text"), list(expressions()))
def test_every_metric_and_label_is_there(where: str, expression: str, text: str) -> None:
    named = named_in(expression)
    assert named.metrics, where
    labels = set(ADDED_BY_PROMETHEUS)
    for metric, matched in named.metrics.items():
        assert metric in SERIES, f"{where}: no {metric}"
        assert matched <= SERIES[metric] | ADDED_BY_PROMETHEUS, f"{where}: {metric} has no {matched - SERIES[metric]}"
        labels |= SERIES[metric]
    assert named.grouped_by <= labels, where
    shown = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", text))
    assert shown <= (named.grouped_by or labels), where
    if "histogram_quantile" in expression:
        assert "le" in named.grouped_by, where
    for metric in named.metrics if text else ():
        is_counted = metric.endswith(("_total", "_bucket", "_sum", "_count"))
        assert is_counted == (f"rate({metric}" in expression or f"increase({metric}" in expression), where


def test_every_metric_is_shown() -> None:
    """Or is it counted for nobody?"""
    shown = {
        metric.removesuffix("_bucket") for _, expression, _ in expressions() for metric in named_in(expression).metrics
    }
    assert {name for name in exposed_metrics() if name.startswith("llmgateway_")} <= shown


@pytest.mark.parametrize(
    "expression",
    ["sum(rate(x[5m])", "rte(x[5m])", "x{a~b}", 'x{a="b"', "rate(x[5])", "x $", 'x{a="b" c="d"', "sum by x"],
)
def test_what_is_no_promql_is_noticed(expression: str) -> None:
    with pytest.raises((NotPromql, IndexError)):
        named_in(expression)


def test_the_dashboard_has_its_rows_in_order() -> None:
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == ROWS


def test_every_panel_has_a_place_of_its_own() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["w"] > 0
        assert place["x"] + place["w"] <= 24
        taken.update((x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"]))
    assert set(taken.values()) == {1}
    identifiers = [panel["id"] for panel in PANELS]
    assert len(set(identifiers)) == len(identifiers)


def test_every_panel_is_of_the_data_source_that_is_chosen() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == VARIABLES
    for panel in PANELS:
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= VARIABLES | {"__rate_interval"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert DASHBOARD["uid"] == "llmgateway"


def test_every_alert_says_how_bad_it_is_and_what_it_means() -> None:
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"]["summary"]
