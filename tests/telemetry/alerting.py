"""What the alerts say of scraped pages: enough of PromQL's meaning for the expressions that have a test here."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client.samples import Sample

from tests.telemetry.scraping import Scrape

_DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = _DEPLOY / "grafana" / "llmgateway.json"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for rule in yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0][
        "rules"
    ]
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"==": operator.eq, ">": operator.gt}
_MATCHES: dict[str, Callable[[str, str], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "=~": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    "!~": lambda value, wanted: re.fullmatch(wanted, value) is None,
}
_HOUR = 3600.0
_RISEN = re.compile(r"delta\((\w+)\[1h\]\) > 0\s+or \((\w+) > 0 unless \2 offset 1h\)\s*")
_LARGEST = re.compile(r"max by \([^)]*\) \((?:max_over_time\()?(\w+)(?:\[(\d+)m\]\))?\) (==|>) (\d+)")


class Moment(NamedTuple):
    """A page, and when it was scraped."""

    seconds: float
    page: Scrape


def longest_minutes(alert: str, history: Sequence[Moment]) -> float:
    """How long the alert's condition held without a break. It fires if that is as long as its `for`."""
    longest = 0.0
    since: float | None = None
    for number, moment in enumerate(history):
        if not all(_holds(part, history[: number + 1]) for part in re.split(r"\s+and\s+", ALERTS[alert]["expr"])):
            since = None
            continue
        since = moment.seconds if since is None else since
        longest = max(longest, moment.seconds - since)
    return longest / 60


def _holds(comparison: str, history: Sequence[Moment]) -> bool:
    """Of the last moment, for a gauge of one deployment."""
    match = _LARGEST.fullmatch(comparison.strip())
    assert match is not None, comparison
    name, minutes, sign, number = match.groups()
    first = history[-1].seconds - 60 * int(minutes or 0)
    values = [sample.value for moment in history if moment.seconds >= first for sample in moment.page.of(name)]
    return _COMPARISONS[sign](max(values), float(number))


def has_risen(alert: str, history: Sequence[Moment]) -> bool:
    """Whether the alert holds at the last moment, of a gauge that has risen within an hour, or begun above 0."""
    match = _RISEN.fullmatch(ALERTS[alert]["expr"])
    assert match is not None, ALERTS[alert]["expr"]
    name, now = match[1], history[-1]
    values = [moment.page.value(name) for moment in history if moment.seconds > now.seconds - _HOUR]
    was_there = any(now.seconds - moment.seconds >= _HOUR for moment in history)
    return values[-1] - values[0] > 0 or (values[-1] > 0 and not was_there)


def selected(expression: str, page: Scrape) -> float:
    """The sum of all series that the expression rates, each counted once: what `sum(rate(a) or rate(b))` is about."""
    return sum(series_of(expression, page).values())


def series_of(expression: str, page: Scrape) -> dict[int, float]:
    """What there is of the series that the expression rates."""
    return {id(sample): sample.value for sample in _rated(expression, page)}


def _rated(expression: str, page: Scrape) -> Iterator[Sample]:
    for name, matchers in re.findall(r"rate\((\w+)(?:\{([^}]*)\})?\[", expression):
        wanted = re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
        for sample in page.of(name):
            if all(_MATCHES[sign](sample.labels.get(label, ""), value) for label, sign, value in wanted):
                yield sample
