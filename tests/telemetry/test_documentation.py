"""docs/monitoring.md names what /metrics shows, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.telemetry.exposed import exposed_metrics

PAGE = Path(__file__).parents[2] / "docs" / "monitoring.md"


def documented() -> dict[str, frozenset[str]]:
    """Labels by metric, from the table."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `llmgateway_"):
            names, labels = line.split("|")[1:3]
            for name in re.findall(r"`(\w+)`", names):
                found[name] = frozenset(label.strip() for label in labels.split(",") if label.strip())
    return found


def test_the_table_is_what_is_exposed() -> None:
    ours = {name: labels for name, labels in exposed_metrics().items() if name.startswith("llmgateway_")}
    assert documented() == ours
