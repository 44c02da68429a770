"""llmgateway reconcile"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from proxy.cli.failures import settings_or_fail, with_database
from proxy.cli.moments import moment
from proxy.cli.plain import plain
from proxy.domain.reconciliation import Drift, Outcome, ReconcileReport
from proxy.settings import Settings

_INTERRUPTED = 130


@click.command()
@click.option("--since", callback=moment, help="Only requests from this ISO date or time on; UTC unless it has a zone.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask for at most so many requests, the oldest first.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, max=100, min_open=True),
    default=5.0,
    show_default=True,
    help="Questions per second, at most.",
)
@click.option("--again", is_flag=True, help="Also ask for those that the provider did not know, at once.")
@click.option("--dry-run", is_flag=True, help="Ask, and show what would be booked, but book nothing.")
@click.option("--json", "as_json", is_flag=True, help="For machines; costs are exact decimal strings.")
def reconcile(
    since: datetime | None, limit: int | None, rate: float, again: bool, dry_run: bool, as_json: bool
) -> None:
    """Ask the provider what it billed for requests whose cost is unknown or estimated, and book it.

    Each answer is booked as it comes: a run that is stopped goes on where it was with the next one. A request that the
    provider does not know is asked for again later, and given up after a day. Exit code 1 when the run ended early.
    """
    settings = settings_or_fail()
    report = ReconcileReport()
    try:
        with _told_whatever_happens(report, dry_run=dry_run, as_json=as_json):
            with_database(_run(settings, report, since, limit, rate, again=again, dry_run=dry_run))
    except KeyboardInterrupt:
        click.echo("Stopped. What was answered is kept; run it again to go on.", err=True)
        sys.exit(_INTERRUPTED)
    if report.stopped:
        raise click.ClickException(
            f"The provider stopped answering: {plain(report.stopped)}. "
            "What was answered is kept; run it again to go on."
        )


@contextmanager
def _told_whatever_happens(report: ReconcileReport, *, dry_run: bool, as_json: bool) -> Iterator[None]:
    failed = True
    try:
        yield
        failed = False
    finally:
        if not failed or report.models:
            if as_json:
                click.echo(json.dumps(as_dict(report, dry_run=dry_run), indent=2))
            else:
                _print(report, dry_run=dry_run)


async def _run(
    settings: Settings,
    report: ReconcileReport,
    since: datetime | None,
    limit: int | None,
    rate: float,
    *,
    again: bool,
    dry_run: bool,
) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    from proxy.bootstrap.reconcile import Search, reconcile_costs  # noqa: PLC0415

    console = Console(stderr=True)
    columns = TextColumn("asking the provider"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        await reconcile_costs(
            settings,
            Search(since=since, again=again),
            report,
            rate_per_second=rate,
            limit=limit,
            dry_run=dry_run,
            on_progress=lambda now: progress.update(bar, total=now.to_ask, completed=now.total().asked),
        )


def as_dict(report: ReconcileReport, *, dry_run: bool) -> dict[str, Any]:
    """The report for machines; null is "not known"."""
    return {
        "object": "reconciliation.report",
        "dry_run": dry_run,
        "stopped": report.stopped,
        "data": [{"model": model, **_figures(drift)} for model, drift in sorted(report.models.items())],
        "total": _figures(report.total()),
        "left_to_ask": max(report.to_ask - report.total().asked, 0),
        "asked_again_later": report.ask_again_later,
        "given_up_before": report.given_up,
        "cannot_be_asked": dict(report.cannot_be_asked),
    }


def _figures(drift: Drift) -> dict[str, Any]:
    percent = drift.percent()
    return {
        "asked": drift.asked,
        **{outcome.value: drift.outcomes[outcome] for outcome in Outcome},
        "unanswered": drift.unanswered,
        "estimated_usd": _exact(drift.estimated_usd),
        "billed_usd": _exact(drift.billed_usd),
        "billed_without_estimate_usd": _exact(drift.billed_without_estimate_usd),
        "drift_percent": None if percent is None else str(percent),
    }


def _exact(usd: Decimal) -> str:
    return f"{usd.normalize():f}"


_PIPED_WIDTH = 200
_HEADINGS = ("model", "asked", "estimated USD", "billed USD", "drift %", "no answer")


def _print(report: ReconcileReport, *, dry_run: bool) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    total = report.total()
    if total.asked:
        table = Table(box=None, pad_edge=False)
        for heading in _HEADINGS:
            table.add_column(heading, justify="left" if heading == "model" else "right", overflow="fold")
        for model, drift in [*sorted(report.models.items()), ("total", total)]:
            table.add_row(Text(plain(model)), *_cells(drift))  # Text: a model's name is not markup
        console.print(table)
    for line in _remarks(report, total, dry_run=dry_run):
        console.print(Text(line))


def _cells(drift: Drift) -> list[str]:
    percent = drift.percent()
    unpriced = f" (+ {_exact(drift.billed_without_estimate_usd)})" if drift.billed_without_estimate_usd else ""
    billed = _exact(drift.billed_usd - drift.billed_without_estimate_usd) + unpriced
    shown = "-" if percent is None else f"{percent:+}"
    return [str(drift.asked), _exact(drift.estimated_usd), billed, shown, str(drift.unanswered)]


def _remarks(report: ReconcileReport, total: Drift, *, dry_run: bool) -> Iterator[str]:
    if not total.asked and not report.stopped:
        yield "There is nothing to ask the provider now."
    if total.billed_without_estimate_usd:
        yield "Costs in brackets had no estimate; the drift is without them."
    if total.outcomes[Outcome.GIVEN_UP]:
        yield f"{total.outcomes[Outcome.GIVEN_UP]} given up: the provider has not known them for a day."
    later = report.ask_again_later + total.outcomes[Outcome.NOT_FOUND] + total.outcomes[Outcome.NO_ANSWER]
    if later:
        yield f"{later} without an answer yet; a later run asks again."
    if report.given_up:
        yield f"{report.given_up} given up in earlier runs (--again asks once more)."
    if report.cannot_be_asked:
        counts = ", ".join(f"{count} {status}" for status, count in report.cannot_be_asked.items())
        yield f"Cannot be asked for, as no generation id is known: {counts}."
    if dry_run and total.asked:
        yield "Nothing was booked: this was a dry run."
