"""Figures as Markdown tables: medians over the rounds, and medians of the rounds' ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.compare.measuring import Plan, Result

SUBJECT = "llmgateway"
BASES = ("aiohttp-bare", "aiohttp-pglog")
_COMPARED = {
    "plain_cpu_ms": "plain",
    "burst_cpu_ms": "burst stream",
    "paced_cpu_ms": "paced stream",
    "large_cpu_ms": "100 KB prompt",
    "added_p50_ms": "added p50",
}


@dataclass
class Report:
    """A run: where and when, how much, each target's result, and why others have none."""

    machine: str
    date: str
    plan: Plan
    results: dict[str, Result] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def markdown(self) -> str:
        """All of it."""
        parts = [_figures(self.results)]
        bases = [base for base in BASES if base in self.results]
        if bases:
            parts.append(_multiples(self.results, bases))
        if SUBJECT in self.results and len(self.results) > 1:
            parts.append(_against_others(self.results))
        parts.append(self._circumstances())
        return "\n\n".join(parts)

    def _circumstances(self) -> str:
        plan = self.plan
        shares = [share for result in self.results.values() for share in result.samples.get("others_share", ())]
        settings = (
            f"Medians of {plan.rounds} rounds of {plan.seconds:g} s for each kind of load (64 connections for plain "
            f"answers, 32 for streams of 50 chunks, 16 for 100 KB prompts); added latency over {plan.turns} requests "
            "one at a time. One process of each gateway on one processor; upstream, clients and PostgreSQL on another."
        )
        lines = [f"{self.date}; {self.machine}.", settings]
        if shares:
            lines.append(
                f"Others used {statistics.median(shares):.0%} of the gateways' processor (median), at most "
                f"{max(shares):.0%} in a round."
            )
        lines += [f"**{name}** was not measured: {reason}" for name, reason in self.not_measured.items()]
        lines += [f"**{name}**: {what}" for name, one in self.results.items() for what in one.complaints]
        return "\n\n".join(lines)


def median(result: Result, figure: str) -> float:
    """Over all rounds, NaN without one."""
    values = [value for value in result.samples.get(figure, ()) if not math.isnan(value)]
    return statistics.median(values) if values else math.nan


def ratio(result: Result, base: Result, figure: str) -> float:
    """The median of what each round says, NaN without one."""
    pairs = zip(result.samples.get(figure, ()), base.samples.get(figure, ()), strict=False)
    ratios = [one / other for one, other in pairs if other > 0 and not math.isnan(one)]
    return statistics.median(ratios) if ratios else math.nan


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figures(results: Mapping[str, Result]) -> str:
    def one(figure: str) -> Callable[[Result], str]:
        return lambda result: _number(median(result, figure))

    def added(result: Result) -> str:
        return f"{_number(median(result, 'added_p50_ms'))} / {_number(median(result, 'added_p99_ms'))}"

    def soak(result: Result) -> str:
        requests = median(result, "soak_requests")
        return "-" if math.isnan(requests) else f"{median(result, 'soak_growth_megabytes'):+.1f} in {requests:,.0f}"

    def rows(result: Result) -> str:
        return "-" if result.rows is None else f"{result.rows:,} of {result.answered:,}"

    columns: dict[str, Callable[[Result], str]] = {
        "version": lambda result: result.version,
        "plain, CPU ms": one("plain_cpu_ms"),
        "burst stream, CPU ms": one("burst_cpu_ms"),
        "paced stream, CPU ms": one("paced_cpu_ms"),
        "100 KB prompt, CPU ms": one("large_cpu_ms"),
        "database, CPU ms a row": one("plain_database_ms"),
        "added ms, p50 / p99": added,
        "cold start, s": one("cold_start_seconds"),
        "idle MB": one("idle_megabytes"),
        "soak, MB in requests": soak,
        "rows of answers": rows,
        "wrong": lambda result: str(result.wrong),
    }
    table = [[name, *(cell(result) for cell in columns.values())] for name, result in results.items()]
    return _table(["target", *columns], table)


def _multiples(results: Mapping[str, Result], bases: Sequence[str]) -> str:
    rows = [
        [name, *(" / ".join(_number(ratio(one, results[base], figure)) for base in bases) for figure in _COMPARED)]
        for name, one in results.items()
    ]
    return f"As multiples of {' / '.join(bases)}:\n\n" + _table(["target", *_COMPARED.values()], rows)


def _against_others(results: Mapping[str, Result]) -> str:
    rows = [
        [name, *(_number(ratio(results[SUBJECT], other, figure)) for figure in _COMPARED)]
        for name, other in results.items()
        if name != SUBJECT
    ]
    return f"{SUBJECT} as a multiple of each (below 1: cheaper or faster):\n\n" + _table(
        ["of", *_COMPARED.values()], rows
    )
